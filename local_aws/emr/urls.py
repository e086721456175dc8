"""The routes, where moto looks for them."""

from __future__ import annotations

from local_aws.emr.responses import EmrResponse

url_bases = [r"https?://elasticmapreduce\.(.+)\.amazonaws.com"]
url_paths = {"{0}/$": EmrResponse.dispatch}
