"""Serve short-lived credentials of one AWS profile to the containers of Airflow, as the agent of ECS does.

Only the container that runs this sees ~/.aws. boto3 asks here again before its credentials expire
(AWS_CONTAINER_CREDENTIALS_FULL_URI). A profile with role_arn over keys renews itself; a session of SSO does until it
ends, then `aws sso login` is enough.

Usage: python -m compose.credentials [--check]; --check prints whom the credentials act as, and ends.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from botocore.exceptions import BotoCoreError, ClientError

ADDRESS = ("127.0.0.1", 5601)
UNKNOWN_LIFETIME = timedelta(hours=1)  # of a session token that a profile holds as it stands


class LongLivedKeys(Exception):
    """The profile has no credentials that expire."""


def short_lived(session: boto3.Session) -> dict[str, str | None]:
    """Return the session's credentials in the form of ECS.

    Raises:
        LongLivedKeys: The profile holds the keys of a user, or none.
    """
    credentials = session.get_credentials()
    frozen = credentials.get_frozen_credentials() if credentials else None
    if credentials is None or frozen is None or not frozen.token:
        raise LongLivedKeys(
            f"profile {session.profile_name!r} has no short-lived credentials. Name a profile with role_arn (the "
            "AirflowRole output of include/stack.yaml) or with SSO; keys of a user are not handed to containers."
        )
    # Not public, and the only way to know it; the AWS CLI's export-credentials reads it too.
    expiry = getattr(credentials, "_expiry_time", None) or datetime.now(UTC) + UNKNOWN_LIFETIME
    return {
        "AccessKeyId": frozen.access_key,
        "SecretAccessKey": frozen.secret_key,
        "Token": frozen.token,
        "Expiration": expiry.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def make_server(session: boto3.Session, address: tuple[str, int] = ADDRESS) -> ThreadingHTTPServer:
    """Return a server that answers each GET with the session's credentials, or with why there are none."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status, answer = 200, short_lived(session)
            except (LongLivedKeys, BotoCoreError, ClientError) as error:
                status, answer = 500, {"code": type(error).__name__, "message": str(error)}
                self.log_error("%s", error)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    return ThreadingHTTPServer(address, Handler)


def main() -> None:
    """Serve until stopped, or with --check print the caller."""
    try:
        session = boto3.Session()
        short_lived(session)
        if sys.argv[1:] == ["--check"]:
            print(session.client("sts").get_caller_identity()["Arn"])
            return
    except (LongLivedKeys, BotoCoreError, ClientError) as error:
        sys.exit(f"ERROR: {error}")
    make_server(session).serve_forever()


if __name__ == "__main__":
    main()
