import pytest
from warm import Warm
from workflow_run import Workflow


@pytest.fixture(scope="session", autouse=True)
def warm(tmp_path_factory):
    """Run the workflow's jobs warm; nothing is started before the first one."""
    Workflow.warm = Warm(tmp_path_factory.mktemp("warm"))
    yield
    Workflow.warm.close()
    Workflow.warm = None
