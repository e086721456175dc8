// Answers each line of standard input, a simulation as JSON, with a line of JSON. iam-simulate is found from the folder
// that it is started in.
const { createRequire } = require("node:module");
const { createInterface } = require("node:readline");
const { runSimulation } = createRequire(`${process.cwd()}/`)("@cloud-copilot/iam-simulate");

(async () => {
  for await (const line of createInterface({ input: process.stdin })) {
    const { errors, overallResult, result, results } = await runSimulation(JSON.parse(line), {});
    const ignoredKeys = (results ?? [result]).flatMap((part) => part?.ignoredContextKeys ?? []);
    process.stdout.write(`${JSON.stringify({ errors, overallResult, ignoredKeys })}\n`);
  }
})();
