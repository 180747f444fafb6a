"""A run of the tests says what it did not test, and CI does not let it pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.servers import java, qdrant, untested

CONFTEST = """
import pytest
from tests.servers import untested

def pytest_configure(config):
    untested.prepare(config)

def pytest_sessionfinish(session):
    untested.finish(session)

@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    untested.take_over(node.config, node.workeroutput)

def pytest_terminal_summary(terminalreporter, config):
    untested.report(config, terminalreporter)

@pytest.fixture
def required(pytestconfig):
    untested.uses(pytestconfig, *untested.REQUIRED)

@pytest.fixture
def absent(pytestconfig):
    def offer():
        raise untested.NotHere("nobody sells it")
    with untested.first_of(pytestconfig, ["Elasticsearch"], offer):
        raise AssertionError
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project of its own whose run is a whole one."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\ntestpaths = tests\naddopts = --import-mode=importlib")
    pytester.makeconftest(CONFTEST)
    pytester.mkdir("tests")
    return pytester


def asking_for(run: pytest.Pytester, fixture: str, *options: str) -> pytest.RunResult:
    """Run one test that asks for a fixture."""
    test = f"def test_it({fixture}):\n    pass\n"
    (run.path / "tests" / "test_it.py").write_text(test, encoding="utf-8")
    return run.runpytest_inprocess(*options)


@pytest.mark.parametrize(("ci", "exit_code"), [("true", 1), ("false", 0)])
def test_a_store_that_no_test_asked_for_is_named(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, exit_code: int
) -> None:
    monkeypatch.setenv("CI", ci)
    result = asking_for(run, "")
    assert result.ret == exit_code
    result.stdout.fnmatch_lines([f"NOT TESTED: {untested.REQUIRED[0]}: no test asked for it"])


@pytest.mark.parametrize(("ci", "exit_code"), [("true", 1), ("false", 0)])
def test_a_store_that_could_not_be_had_is_named_with_the_reason(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, exit_code: int
) -> None:
    monkeypatch.setenv("CI", ci)
    result = asking_for(run, "absent")
    assert result.ret == exit_code
    result.stdout.fnmatch_lines(["NOT TESTED: Elasticsearch: nobody sells it"])


def test_only_what_is_required_fails_the_run(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    result = asking_for(run, "required")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"NOT TESTED: {name}: *" for name in untested.OPTIONAL])


@pytest.mark.parametrize(
    ("fixture", "exit_code", "said"),
    [
        ("required", 0, "NOT TESTED: Qdrant server (REST): no test asked for it"),
        ("absent", 1, "NOT TESTED: Elasticsearch: nobody sells it"),
    ],
)
def test_what_workers_used_and_left_out_is_counted_together(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, fixture: str, exit_code: int, said: str
) -> None:
    monkeypatch.setenv("CI", "true")
    result = asking_for(run, fixture, "-p", "xdist", "-n", "2")
    assert result.ret == exit_code
    result.stdout.fnmatch_lines([said])
    result.stdout.no_fnmatch_line(f"NOT TESTED: {untested.REQUIRED[0]}: nobody*")


def test_a_part_of_the_tests_need_not_use_every_store(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    result = asking_for(run, "", "-k", "test_it")
    assert result.ret == 0
    result.stdout.no_fnmatch_line("NOT TESTED*")


def test_a_server_of_the_environment_comes_first_with_all_its_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAMESPACE_TEST_QDRANT", "http://elsewhere:1")
    monkeypatch.setenv("SAMESPACE_TEST_QDRANT_GRPC", "2")
    with qdrant.given() as server:
        assert server == qdrant.QdrantServer("http://elsewhere:1", 2)


@pytest.fixture
def homes(tmp_path: Path) -> dict[str, Path]:
    """The homes of JDKs by what they say of their version, and of one without a compiler."""
    made = {}
    for version in ("1.8.0_402", "17.0.9", "21", "25.0.3", "26-ea"):
        home = made[version] = tmp_path / version
        (home / "bin").mkdir(parents=True)
        (home / "bin" / "javac").touch()
        (home / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    (made["26-ea"] / "bin" / "javac").unlink()
    return made


def test_the_version_of_a_jdk_is_read_from_what_it_says(homes: dict[str, Path]) -> None:
    assert [java.version_of(home) for home in homes.values()] == [8, 17, 21, 25, 0]


def test_a_jdk_that_is_named_for_the_tests_is_the_one(
    homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(java.GIVEN, str(homes["21"]))
    assert java.home() == homes["21"]


def test_a_jdk_that_is_too_old_is_refused_by_name(
    homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(java.GIVEN, str(homes["17.0.9"]))
    with pytest.raises(untested.NotHere, match=r"JDK >= 21 \(seen: .*17\.0\.9\)"):
        java.home()
