"""Glue's operations, with an UpdateTable that reads VersionId."""

from moto.core.responses import ActionResult, EmptyResult
from moto.glue.models import glue_backends
from moto.glue.responses import GlueResponse

from local_aws.glue.models import StrictGlueBackend


class StrictGlueResponse(GlueResponse):
    """moto's operations with the UpdateTable of AWS."""

    @property
    def glue_backend(self) -> StrictGlueBackend:
        """The catalog of the account and region that the request is signed for."""
        return glue_backends[self.current_account][self.region]  # type: ignore[return-value]  # replaced in assembly

    def update_table(self) -> ActionResult:
        """UpdateTable."""
        parameters = self.parameters
        self.glue_backend.commit_table(
            parameters["DatabaseName"],
            parameters["TableInput"],
            parameters.get("VersionId"),
            skip_archive=bool(parameters.get("SkipArchive")),
        )
        return EmptyResult()
