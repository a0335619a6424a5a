"""What tests of several rooms share: a real server that speaks S3, and the prepared imagery when it is there."""

import gc
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer


@dataclass(frozen=True)
class Bucket:
    """A bucket on the test's own server."""

    name: str
    endpoint_url: str
    client: object

    def put(self, key: str, content: bytes, *, public: bool = True) -> str:
        acl = "public-read" if public else "private"
        self.client.put_object(Bucket=self.name, Key=key, Body=content, ACL=acl)
        return f"s3://{self.name}/{key}"

    def put_folder(self, folder: Path, prefix: str) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}{path.relative_to(folder).as_posix()}", path.read_bytes())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, those with most of them before all.

    `make test` gives files to its workers in this order: none is left alone with a long one at the end.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


_TRACKING_URI = os.environ.get("MLFLOW_TRACKING_URI")


@pytest.fixture(autouse=True)
def mlflow_forgets() -> Iterator[None]:
    """MLflow puts the address it is told into the environment, where settings and other processes would find it.

    Fixtures of a module tell it one before a test begins, so the environment is put right then as well.
    """
    _forget()
    yield
    _forget()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is freed is freed because nothing refers to it."""
    gc.disable()
    yield
    gc.enable()


def _forget() -> None:
    if _TRACKING_URI is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = _TRACKING_URI


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", nowhere)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


_numbers = itertools.count()


@pytest.fixture
def make_bucket(s3_server: str) -> Callable[[str], Bucket]:
    client = boto3.client("s3", endpoint_url=s3_server)

    def make(name: str) -> Bucket:
        client.create_bucket(Bucket=name, ACL="public-read")
        return Bucket(name, s3_server, client)

    return make


@pytest.fixture
def bucket(make_bucket: Callable[[str], Bucket]) -> Bucket:
    return make_bucket(f"test-bucket-{next(_numbers)}")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The prepared imagery beside the repository, which not every machine has."""
    given = os.environ.get("FOOTPRINT_REAL_DATA")
    folder = Path(given) if given else Path(__file__).parents[1].parent / "shared" / "data"
    if not (folder / "rio").is_dir():
        pytest.skip("no prepared imagery: set FOOTPRINT_REAL_DATA to the folder with accra, rio and vegas")
    return folder
