"""Running the tests on a busy machine: failures are counted, a run without tests is an error."""

import json

import pytest

from alam_core.errors import UserError
from alam_training.benchmarks import busy_tests
from alam_training.benchmarks.busy_tests import BusyTestsConfig, failed_tests, main

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="good"/>
<testcase classname="tests.a" name="bad"><failure>no</failure></testcase>
<testcase classname="tests.b" name="broken"><error>no</error></testcase>
<testcase classname="tests.b" name="skipped"><skipped/></testcase>
</testsuite></testsuites>"""


def test_failures_and_errors_are_counted(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    assert failed_tests(tmp_path / "report.xml") == ["tests.a::bad", "tests.b::broken"]


@pytest.mark.parametrize("content", [None, "<testsuites/>", "not XML"])
def test_a_run_without_tests_is_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / "report.xml").write_text(content)
    with pytest.raises(UserError, match="by hand"):
        failed_tests(tmp_path / "report.xml")


def test_runs_are_counted_and_the_load_ends(tmp_path, monkeypatch):
    burners = []
    popen = busy_tests.subprocess.Popen

    def watched(*args, **kwargs):
        burners.append(popen(*args, **kwargs))
        return burners[-1]

    monkeypatch.setattr(busy_tests.subprocess, "Popen", watched)
    monkeypatch.setattr(busy_tests, "BUSY_WINDOW", 0.2)
    monkeypatch.setattr(
        busy_tests, "run_tests", lambda paths: ["tests.a::bad"] if paths == ["tests"] else []
    )
    config = BusyTestsConfig(ros_runs=2, suite_runs=1, load=1, results=str(tmp_path))
    assert main(config) == 1
    values = json.loads((tmp_path / "busy_tests.json").read_text())["values"]
    assert (values["ros_runs"], values["suite_runs"], values["failures"]) == (2, 1, 1)
    assert values["failed_tests"] == {"tests.a::bad": 1}
    assert 0 < values["busy_before"] <= 100
    again = BusyTestsConfig(ros_runs=0, suite_runs=1, load=1, results=str(tmp_path), add=True)
    assert main(again) == 1
    values = json.loads((tmp_path / "busy_tests.json").read_text())["values"]
    assert (values["ros_runs"], values["suite_runs"], values["failures"]) == (2, 2, 2)
    burners = [process for process in burners if busy_tests.BURN in process.args]
    assert [burner.poll() is not None for burner in burners] == [True, True]
