import pytest
from hypothesis import settings
from warm import Warm
from workflow_run import Workflow

settings.register_profile("untimed", deadline=None)  # a slow machine must not fail a test
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def warm(tmp_path_factory):
    """Run the workflow's jobs warm; nothing is started before the first one."""
    Workflow.warm = Warm(tmp_path_factory.mktemp("warm"))
    yield
    Workflow.warm.close()
    Workflow.warm = None
