"""The routes, where moto looks for them."""

from local_aws.emr.responses import EmrResponse

url_bases = [r"https?://elasticmapreduce\.(.+)\.amazonaws.com"]
url_paths = {"{0}/$": EmrResponse.dispatch}
