"""The forms for asyncio: the results of ``map`` while the event loop goes on."""

import asyncio
import contextvars
import gc
import threading
import time

import pytest

from amorsize import (
    TaskTimeoutError,
    WorkerLostError,
    last_run,
    smart_imap_async,
    smart_map,
    smart_map_async,
)
from tests import functions as f
from tests import programs
from tests.load import first_undisturbed

WAYS = [
    pytest.param({"mp_context": "fork"}, id="fork"),
    pytest.param({"mp_context": "forkserver"}, id="forkserver"),
    pytest.param({"n_jobs": 2, "mp_context": "spawn"}, id="spawn"),
    pytest.param({"n_jobs": 2, "backend": "thread"}, id="thread"),
    pytest.param({"n_jobs": 1}, id="serial"),
    pytest.param({}, id="decided"),
]

if not programs.HAS_EVENT_LOOPS:
    pytest.skip("the mask hides what event loops of Unix need", allow_module_level=True)

LONGEST_SECONDS = 0.01  # what an event loop may be stopped for


def held(x):
    """Take 50 ms without letting go of the interpreter."""
    return x, sum(range(2_000_000))


async def arriving(items, every=0.0, log=None):
    """Give items one by one, and note in ``log`` what was asked for."""
    for item in items:
        if every:
            await asyncio.sleep(every)
        if log is not None:
            log.append(item)
        yield item


def run(main, seconds=60):
    """Run a coroutine function in an event loop of its own, within a deadline."""

    async def limited():
        async with asyncio.timeout(seconds):
            return await main()

    return asyncio.run(limited())


@pytest.mark.parametrize("way", WAYS)
class TestEveryWay:
    def test_awaited_results_are_those_of_map(self, way):
        """smart_map_async returns what map returns, for several inputs of any kind."""

        async def main():
            return [
                await smart_map_async(f.double, range(300), **way),
                await smart_map_async(pow, [2, 3, 4], (5, 2), **way),
                await smart_map_async(f.double, arriving(range(50)), **way),
                await smart_map_async(f.add, arriving(range(50)), range(30), **way),
                await smart_map_async(f.double, [], **way),
            ]

        assert run(main) == [
            [2 * x for x in range(300)],
            [32, 9],
            [2 * x for x in range(50)],
            [2 * x for x in range(30)],
            [],
        ]

    def test_iterated_results_are_those_of_map(self, way):
        """smart_imap_async yields what map yields, from any input."""

        async def main():
            return [
                [x async for x in smart_imap_async(f.double, data(), **way)]
                for data in (
                    lambda: range(300),
                    lambda: iter([]),
                    lambda: arriving(range(50)),
                    lambda: arriving(range(20), 0.002),
                )
            ]

        expected = [[2 * x for x in range(count)] for count in (300, 0, 50, 20)]
        assert run(main) == expected

    def test_an_exception_arrives_as_itself(self, way):
        """With a note that names the item, whichever input it came from."""

        async def main(data):
            with pytest.raises(ValueError) as caught:
                await smart_map_async(f.fail_on_multiples_of_30, data(), **way)
            assert "item 29" in caught.value.__notes__[0]
            got = []
            with pytest.raises(ValueError):
                async for x in smart_imap_async(f.fail_on_multiples_of_30, data(), **way):
                    got.append(x)
            assert len(got) == 29

        run(lambda: main(lambda: range(1, 200)))
        run(lambda: main(lambda: arriving(range(1, 200))))

    def test_an_exception_of_the_input_arrives_behind_the_items_before_it(self, way):
        """As with a generator."""

        async def broken():
            yield 1
            yield 2
            raise LookupError("no more")

        async def main():
            got = []
            with pytest.raises(LookupError, match="no more"):
                async for x in smart_imap_async(f.double, broken(), **way):
                    got.append(x)
            with pytest.raises(LookupError, match="no more"):
                await smart_map_async(f.double, broken(), **way)
            return got

        assert run(main) == [2, 4]


def test_the_results_may_be_exceptions():
    """``return_exceptions`` and the other options mean what they mean in smart_map."""

    async def main():
        return await smart_map_async(
            f.fail_on_multiples_of_30, [29, 30, 31], return_exceptions=True
        )

    first, second, third = run(main)
    assert (first, third) == (29, 31)
    assert isinstance(second, ValueError)


def test_a_killed_worker_is_an_error_or_a_retry():
    """As in smart_map."""

    async def main():
        with pytest.raises(WorkerLostError, match="item 7"):
            await smart_map_async(f.leave_on_7, arriving(range(20)))

    run(main)


def test_input_is_not_read_ahead_of_need():
    """An endless asynchronous input is asked for no more than the workers need."""
    log = []

    async def endless():
        x = 0
        while True:
            log.append(x)
            yield x
            x += 1

    async def main():
        results = smart_imap_async(f.busy_ms, endless(), buffersize=6, n_jobs=2)
        assert not log
        async for _ in results:
            break
        taken = len(log)
        await asyncio.sleep(0.1)
        assert len(log) <= taken + 6
        await results.aclose()
        return taken

    assert run(main) <= 7


def test_a_result_does_not_wait_for_the_next_item():
    """An input may wait for what came of its earlier items."""

    async def main():
        came = asyncio.Queue()

        async def answering():
            for x in range(5):
                yield x
                assert await came.get() == 2 * x  # the consumer has had it

        got = []
        async for value in smart_imap_async(f.double, answering()):
            got.append(value)
            came.put_nowait(value)
        return got

    assert run(main) == [0, 2, 4, 6, 8]


def test_results_may_be_consumed_slowly_or_not_at_all():
    """An iterator that is dropped ends its call."""

    async def main():
        async for x in smart_imap_async(f.double, range(10**6)):
            if x == 10:
                break
            await asyncio.sleep(0.001)
        gc.collect()
        never = smart_imap_async(f.double, arriving(range(5)))
        del never

    run(main)


@pytest.mark.parametrize("way", WAYS[:2] + WAYS[3:])
def test_a_cancelled_task_cancels_its_call(way):
    """No worker and no thread is left, and the input was told."""
    told = []

    async def waiting():
        try:
            for x in range(10**6):
                yield x
                await asyncio.sleep(0)
            await asyncio.sleep(1000)
        finally:
            told.append("ended")

    async def main():
        for data in (lambda: range(10**6), waiting):
            task = asyncio.create_task(smart_map_async(f.busy_ms, data(), **way))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            names = [one.name for one in threading.enumerate()]
            assert "amorsize-async" not in names

        async def consume():
            async for _ in smart_imap_async(f.busy_ms, waiting(), **way):
                pass

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consume(), 0.3)

    run(main)
    assert told == ["ended", "ended"]


def test_a_call_that_is_cancelled_again_and_again_ends_once():
    """Cancelling what already ends does not leave anything behind."""

    async def main():
        task = asyncio.create_task(smart_map_async(f.busy_ms, range(10**6)))
        await asyncio.sleep(0.2)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()

    run(main)


def test_time_limits_hold_while_the_input_is_waited_for():
    """``timeout`` ends a call whose input gives nothing."""

    async def silent():
        yield 1
        await asyncio.sleep(1000)

    async def main():
        with pytest.raises(TaskTimeoutError):
            await smart_map_async(f.double, silent(), timeout=0.3)

    run(main)


def test_calls_run_side_by_side():
    """Several calls at the same time do not disturb each other."""

    async def main():
        calls = (smart_map_async(f.busy_ms, range(x, x + 40)) for x in range(4))
        return await asyncio.gather(*calls)

    assert run(main) == [[f.busy_ms(y) for y in range(x, x + 40)] for x in range(4)]


def test_functions_see_the_context_of_the_caller():
    """Context variables have the values that they have where the call is awaited."""
    variable = contextvars.ContextVar("variable", default="none")

    async def main():
        variable.set("set")
        return await smart_map_async(lambda _: variable.get(), range(4))

    assert run(main) == ["set"] * 4


def test_the_report_is_that_of_the_awaiting_thread():
    """last_run tells of the awaited call, and that its items ran in workers only."""

    async def main():
        await smart_map_async(f.busy_ms, range(60))
        return last_run()

    report = run(main)
    assert (report.function, report.items, report.caller_items) == ("busy_ms", 60, 0)
    assert "other work" in report.reason


def test_progress_and_totals():
    """Progress counts all items, and knows the total that is given."""
    seen = []

    async def main():
        await smart_map_async(
            f.double, arriving(range(40)), total=40, progress=lambda *pair: seen.append(pair)
        )

    run(main)
    assert seen[-1] == (40, 40)


def test_bad_arguments_are_refused():
    """Before anything runs, and iterators at once."""

    async def asynchronous(x):
        return x

    with pytest.raises(ValueError, match="n_jobs"):
        smart_imap_async(f.double, [1], n_jobs=0)
    with pytest.raises(TypeError, match="asynchronous"):
        smart_imap_async(asynchronous, [1])
    with pytest.raises(TypeError, match="chunksize=5"):
        smart_imap_async(f.double, [1], 5)
    with pytest.raises(TypeError, match="smart_map_async"):
        smart_map(f.double, arriving([1]))

    async def main():
        with pytest.raises(TypeError, match="buffersize"):
            await smart_map_async(f.double, [1], buffersize=3)

    run(main)


def test_what_cannot_be_sent_runs_in_the_calling_process():
    """A function that fresh workers cannot be given is run all the same."""
    lock = threading.Lock()

    def guarded(x):
        with lock:
            return x

    async def main():
        return await smart_map_async(guarded, range(10), mp_context="spawn")

    assert run(main) == list(range(10))


def queued():
    """Return how long this thread has waited for a CPU, s; 0 where the system does not tell."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


@pytest.mark.parametrize("form", ["map", "imap"])
def test_the_loop_goes_on(form):
    """The loop is not stopped for 10 ms, though the function holds the interpreter for 50."""

    async def main():
        gaps, last, ended = [], time.perf_counter(), asyncio.Event()

        async def beat():
            nonlocal last
            waited = queued()
            while not ended.is_set():
                await asyncio.sleep(0.001)
                now, so_far = time.perf_counter(), queued()
                # While it waits for a CPU, nobody stops the loop but the machine.
                gaps.append(now - last - (so_far - waited))
                last, waited = now, so_far

        beating = asyncio.create_task(beat())
        if form == "map":
            results = await smart_map_async(held, range(20))
        else:
            results = [x async for x in smart_imap_async(held, arriving(range(20)))]
        ended.set()
        await beating
        assert [x for x, _ in results] == list(range(20))
        return max(gaps) < LONGEST_SECONDS

    assert first_undisturbed(lambda: run(main), wanted=True)


def test_long_lists_of_results_let_the_loop_go_on():
    """A consumer that never waits gives the loop its turn."""

    async def main():
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        async for _ in smart_imap_async(f.double, range(200_000)):
            sum(range(50))
        counting.cancel()
        return turns

    assert run(main) > 10


def test_ctrl_c_ends_a_program(tmp_path):
    """asyncio.run cancels its main task, and nothing is left."""
    source = """
import asyncio, os, signal, time
from amorsize import smart_map_async
def work(x):
    time.sleep(0.01)
    return x
async def main():
    asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGINT)
    await smart_map_async(work, range(10**6))
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    ended = programs.run_source(source, tmp_path)
    assert (ended.out, ended.err) == ("interrupted\n", "")


def test_a_large_process_is_not_forked(tmp_path):
    """A fork would stop the loop for long; fresh workers do not, if the function is light."""
    source = """
import asyncio
from amorsize import last_run, smart_map_async
held = bytearray(1 << 30)
held[::4096] = b"x" * (1 << 18)
def work(x): return x + 1
assert asyncio.run(smart_map_async(work, range(100))) == list(range(1, 101))
print(last_run().start_method, "|", last_run().start_reason)
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out.startswith("forkserver | a fork would stop this process for"), ended


async def staying_open(items):
    """Give items, and then wait for ever."""
    for item in items:
        yield item
    await asyncio.sleep(1000)


@pytest.mark.parametrize("way", [{}, {"n_jobs": 2}])
def test_the_shortest_input_ends_the_call(way):
    """Also where another one stays open and gives nothing more, which is then not read further."""
    taken = []

    async def main():
        long = arriving(range(1000), log=taken)
        return [
            [x async for x in smart_imap_async(f.add, [1, 2, 3], staying_open(range(3)), **way)],
            await smart_map_async(f.add, arriving(range(3)), staying_open(range(5)), **way),
            await smart_map_async(f.add, long, range(4), **way),
        ]

    assert run(main) == [[1, 3, 5], [0, 2, 4], [0, 2, 4, 6]]
    assert len(taken) == 4


def test_an_error_of_one_input_does_not_wait_for_another():
    """It is raised behind the items before it."""

    async def broken():
        yield 1
        raise LookupError("no more")

    async def main():
        got = []
        with pytest.raises(LookupError):
            async for x in smart_imap_async(f.add, staying_open(range(5)), broken()):
                got.append(x)
        return got

    assert run(main) == [1]


def test_stop_iteration_is_no_hang():
    """An exception that a future cannot have arrives as Python's own coroutines change it."""

    def stop(*_):
        raise StopIteration

    async def main():
        with pytest.raises(RuntimeError, match="StopIteration"):
            await smart_map_async(f.double, [1, 2], report=stop)

    run(main)


def test_a_loop_that_was_closed_leaves_nothing():
    """A suspended iterator of a closed loop ends its call when it is collected."""
    loop = asyncio.new_event_loop()
    results = smart_imap_async(f.wait_5ms, range(10**6))
    first = loop.run_until_complete(anext(results))  # in an assert, pytest would keep the iterator
    assert first == 0
    loop.close()
    del results
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "amorsize-async":
            thread.join(20)
    assert "amorsize-async" not in [thread.name for thread in threading.enumerate()]
