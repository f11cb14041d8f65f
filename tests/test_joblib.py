"""``register_joblib``: what uses joblib runs in workers of amorsize."""

import functools
import multiprocessing
import os
import threading
import warnings

import pytest

from amorsize import WorkerLostError, register_joblib, smart_map
from tests import functions as f
from tests import programs

joblib = pytest.importorskip("joblib")
numpy = pytest.importorskip("numpy")

register_joblib()

SETTINGS = {"step": 0}

METHODS = ["fork", "forkserver", "spawn"]


def tasks(func, *columns):
    """Return the tasks for joblib, one for each row."""
    return (joblib.delayed(func)(*row) for row in zip(*columns, strict=True))


def changed_sum(array, place):
    """Write into an array, and return what it holds."""
    array[place] = 1.0
    return float(array.sum())


def are_same(first, second, holder):
    """Return whether these are one array."""
    return first is second and holder["array"] is first


@pytest.fixture(params=METHODS)
def method(request):
    """Run the test with joblib's tasks in workers of each kind."""
    with joblib.parallel_config(backend="amorsize", n_jobs=2, mp_context=request.param):
        yield request.param


class TestEveryMethod:
    def test_results_are_in_order(self, method):
        """And run in other processes."""
        assert joblib.Parallel()(tasks(f.double, range(300))) == [2 * x for x in range(300)]
        assert os.getpid() not in joblib.Parallel()(tasks(f.pid_of, range(6)))

    def test_generators(self, method):
        """Results may be taken one by one, in order or as they come."""
        ordered = joblib.Parallel(return_as="generator")(tasks(f.double, range(30)))
        assert next(ordered) == 0
        assert list(ordered) == [2 * x for x in range(1, 30)]
        unordered = joblib.Parallel(return_as="generator_unordered")(tasks(f.double, range(30)))
        assert sorted(unordered) == [2 * x for x in range(30)]

    def test_an_exception_arrives_as_itself(self, method):
        """And nothing is left behind."""
        with pytest.raises(ValueError, match="no [369]0"):
            joblib.Parallel()(tasks(f.fail_on_multiples_of_30, range(100)))

    def test_lambdas_and_closures(self, method):
        """What joblib sends, these workers take."""
        held = 5
        assert joblib.Parallel()(tasks(lambda x: x + held, range(5))) == [5, 6, 7, 8, 9]

    def test_nested_use(self, method):
        """Tasks may use joblib themselves."""

        def inner(x):
            return sum(joblib.Parallel(n_jobs=2)(tasks(f.double, range(x))))

        assert joblib.Parallel()(tasks(inner, range(5))) == [x * (x - 1) for x in range(5)]

    def test_one_parallel_for_several_calls(self, method):
        """Its workers live as long as it does, where they run code of libraries only."""
        with joblib.Parallel() as parallel:
            first, again = (
                set(parallel(joblib.delayed(os.getpid)() for _ in range(20))) for _ in range(2)
            )
        assert len(first | again) <= 2


class TestArguments:
    def test_a_common_argument_is_each_tasks_own(self):
        """It is sent once, and what a task writes into it nobody else sees."""
        array = numpy.zeros(300_000)
        with joblib.parallel_config(backend="amorsize", n_jobs=2):
            found = joblib.Parallel(batch_size=1)(
                joblib.delayed(changed_sum)(array, x) for x in range(20)
            )
        assert found == [1.0] * 20
        assert not array.any()
        assert os.getpid() not in programs.segments()

    def test_other_values_are_what_they_are_when_the_task_is_made(self):
        """A list that grows is sent for each batch anew; joblib itself reads a little ahead."""
        seen = []

        def growing():
            for x in range(5):
                seen.append(x)
                yield joblib.delayed(len)(seen)

        with joblib.parallel_config(backend="amorsize", n_jobs=2):
            found = joblib.Parallel(batch_size=1, pre_dispatch=1)(growing())
        assert found == sorted(found)
        assert found[0] < 4
        assert found[-1] == 5

    def test_each_task_may_have_an_argument_of_its_own(self):
        """Arguments go when their task is done."""
        with joblib.parallel_config(backend="amorsize", n_jobs=2):
            sums = joblib.Parallel()(
                joblib.delayed(numpy.sum)(numpy.full(200_000, x)) for x in range(20)
            )
        assert sums == [200_000 * x for x in range(20)]

    def test_arguments_are_the_same_object_where_they_were(self):
        """An array that a task has twice is one array there, also inside of another object."""
        array = numpy.zeros(300_000)
        holder = {"array": array}
        with joblib.parallel_config(backend="amorsize", n_jobs=2):
            found = joblib.Parallel(batch_size=1)(
                joblib.delayed(are_same)(array, array, holder) for _ in range(6)
            )
        assert found == [True] * 6

    def test_what_changes_between_calls_is_sent_anew(self, method):
        """Arguments, and the globals of functions that are sent by value."""
        array = numpy.zeros(300_000)
        with joblib.Parallel(batch_size=1) as parallel:
            for step in range(3):
                array[:] = step
                SETTINGS["step"] = step
                found = parallel(joblib.delayed(lambda a: (a[0], SETTINGS["step"]))(array)
                                 for _ in range(4))  # fmt: skip
                assert found == [(step, step)] * 4


class TestWorkersThatAreKept:
    def test_code_of_the_users_in_an_argument_is_always_the_present_one(self):
        """Where the function of the tasks is a library's."""
        with joblib.parallel_config(backend="amorsize", n_jobs=2, mp_context="forkserver"):
            for step in range(3):
                SETTINGS["step"] = step
                call = functools.partial(functools.reduce, lambda a, b: SETTINGS["step"])
                found = joblib.Parallel()(joblib.delayed(call)([1, 2]) for _ in range(4))
                assert found == [step] * 4

    def test_threads_may_share_them(self):
        """Several threads, each with calls of its own one after the other."""
        failed = []

        def calls():
            try:
                with joblib.parallel_config(backend="amorsize", n_jobs=2, mp_context="forkserver"):
                    for _ in range(5):
                        joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(4))
            except Exception as error:  # noqa: BLE001
                failed.append(error)

        threads = [threading.Thread(target=calls) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failed

    def test_those_of_library_code_serve_again(self):
        """Where workers are fresh, the next call has them at once, until this process forks."""
        with joblib.parallel_config(backend="amorsize", n_jobs=2, mp_context="forkserver"):
            calls = [
                set(joblib.Parallel(batch_size=1)(joblib.delayed(os.getpid)() for _ in range(40)))
                for _ in range(2)
            ]
            assert calls[0] & calls[1]
            smart_map(f.double, range(10), n_jobs=2, mp_context="fork")
            again = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(20))
        assert not set(again) & (calls[0] | calls[1])

    def test_those_of_the_users_code_do_not(self, monkeypatch):
        """Code of the user's sees the present values of its globals in every call."""
        with joblib.parallel_config(backend="amorsize", n_jobs=2, mp_context="forkserver"):
            for factor in (3, 4):
                monkeypatch.setattr(f, "HELPER_FACTOR", factor)
                assert joblib.Parallel()(tasks(f.helped, range(4))) == [
                    factor * x for x in range(4)
                ]

    def test_the_state_of_libraries_is_that_of_the_call(self):
        """A change of the interpreter's or a library's state reaches the next call."""
        with joblib.parallel_config(backend="amorsize", n_jobs=2, mp_context="forkserver"):
            for how in ("raise", "ignore"):
                with numpy.errstate(divide=how):
                    found = joblib.Parallel()(joblib.delayed(numpy.geterr)() for _ in range(4))
                assert {one["divide"] for one in found} == {how}


def test_without_a_number_all_cpus_are_used():
    """n_jobs is counted as joblib does."""
    with joblib.parallel_config(backend="amorsize"):
        assert joblib.effective_n_jobs() == joblib.effective_n_jobs(-1) >= 1
        assert joblib.effective_n_jobs(3) == 3
        assert joblib.effective_n_jobs(1) == 1
        assert joblib.Parallel(n_jobs=1)(tasks(f.pid_of, range(2))) == [os.getpid()] * 2
        with pytest.raises(ValueError, match="n_jobs"):
            joblib.Parallel(n_jobs=0)(tasks(f.double, range(2)))


def test_bad_settings_are_refused():
    """Before anything runs."""
    with pytest.raises(ValueError, match="start method"):
        joblib.parallel_config(backend="amorsize", mp_context="forks")
    with pytest.raises(TypeError):
        joblib.parallel_config(backend="amorsize", processes=2)


def test_a_task_that_kills_its_worker_is_an_error():
    """Not a hang, and the others have run."""
    with (
        joblib.parallel_config(backend="amorsize", n_jobs=2),
        pytest.raises(WorkerLostError),
    ):
        joblib.Parallel()(tasks(f.leave_on_7, range(20)))


def test_time_limits():
    """joblib's timeout ends the tasks."""
    with (
        joblib.parallel_config(backend="amorsize", n_jobs=2),
        pytest.raises(multiprocessing.TimeoutError),
    ):
        joblib.Parallel(timeout=0.5)(tasks(f.hang_on_3, range(6)))


def test_threads_of_the_caller_may_use_it():
    """Several threads at the same time, each with a Parallel of its own."""
    found = {}

    def run(name):
        with joblib.parallel_config(backend="amorsize", n_jobs=2):
            found[name] = joblib.Parallel()(tasks(f.double, range(name, name + 50)))

    threads = [threading.Thread(target=run, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {name: [2 * x for x in range(name, name + 50)] for name in range(3)}


def test_scikit_learn():
    """A grid search and a forest give what they give in one process, without a warning."""
    model_selection = pytest.importorskip("sklearn.model_selection")
    ensemble = pytest.importorskip("sklearn.ensemble")
    svm = pytest.importorskip("sklearn.svm")
    datasets = pytest.importorskip("sklearn.datasets")
    values, labels = datasets.make_classification(400, 20, random_state=0)
    forest = ensemble.RandomForestClassifier(10, random_state=0, n_jobs=2)

    def scores(backend):
        with joblib.parallel_config(backend=backend), warnings.catch_warnings():
            warnings.simplefilter("error")
            search = model_selection.GridSearchCV(svm.SVC(), {"C": [0.1, 1, 10]}, n_jobs=2, cv=3)
            found = model_selection.cross_val_score(forest, values, labels, n_jobs=2, cv=3)
            return (*search.fit(values, labels).cv_results_["mean_test_score"], *found)

    assert scores("amorsize") == scores("sequential")


def test_without_joblib_the_extra_is_named(tmp_path):
    """One line says what to install."""
    source = """
import sys
sys.modules["joblib"] = None
import amorsize
try:
    amorsize.register_joblib()
except ImportError as error:
    print(error)
"""
    assert programs.run_source(source, tmp_path).out == (
        "register_joblib needs joblib: pip install 'amorsize[joblib]'\n"
    )
