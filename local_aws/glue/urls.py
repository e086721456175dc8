"""The routes, where moto looks for them."""

from local_aws.glue.responses import StrictGlueResponse

url_bases = [r"https?://glue\.(.+)\.amazonaws\.com"]
url_paths = {"{0}/$": StrictGlueResponse.dispatch}
