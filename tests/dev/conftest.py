"""The model artifacts, for the tests of what makes and uses them."""

from tests.models import model as model
from tests.models import models as models
