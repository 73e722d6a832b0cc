"""Sessions across processes: forks while threads work, pickling, multiprocessing."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import bitinfer
import hostile
from bitinfer import modelfile
from bitinfer.errors import BackendError, BitInferError, ModelFileError, PicklingError
from bitinfer.graph import GraphBuilder
from bitinfer.model import Model
from bitinfer.session import Session

TESTS = Path(__file__).parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model file of a network of (9, 8, 3) with three outputs."""
    (tmp_path / "m.bin").write_bytes(hostile.example())
    return tmp_path / "m.bin"


def run_script(text: str, *arguments: object, timeout: int = 120) -> str:
    """Run a script beside the tests in a process of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORKS = """
    import os, signal, sys, threading, warnings
    import numpy as np
    import bitinfer
    from test_threads import set_parts

    warnings.simplefilter("ignore", DeprecationWarning)  # that threads are alive is the point
    path, backend, forks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    session = bitinfer.load(path, backend=backend, threads=2)
    x = np.random.default_rng(0).standard_normal((2, 9, 8, 3)).astype(np.float32)

    def run(n=1):
        return [value.tobytes() for value in session.run(x[:n]).values()]

    wanted, both, stop = run(), run(2), threading.Event()
    if backend.startswith("native"):
        set_parts(session, 3)

    def keep_running():
        while not stop.is_set():
            run()

    threads = [threading.Thread(target=keep_running) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(forks):
        assert run() == wanted
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            code = 1
            try:
                code = 0 if run() == wanted and run(2) == both else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0, number
    stop.set()
    for thread in threads:
        thread.join()
    print("same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("forks", [50, pytest.param(1000, marks=pytest.mark.long)])
def test_children_of_a_process_with_working_threads_answer(
    path: Path, native_name: str, forks: int
) -> None:
    assert run_script(FORKS, path, native_name, forks, timeout=600) == "same\n"


MULTIPROCESSING = """
    import multiprocessing, sys, warnings
    import numpy as np
    import bitinfer

    warnings.simplefilter("ignore", DeprecationWarning)
    x = np.ones((9, 8, 3), np.float32)

    def work(task):
        session, i = task
        return [value.tolist() for value in session.run(x * (i - 2)).values()]

    if __name__ == "__main__":
        path, name, method = sys.argv[1:]
        session = bitinfer.load(path, backend=name, threads=2)
        tasks = [(session, i) for i in range(4)]
        wanted = [work(task) for task in tasks]
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(work, tasks) == wanted
        print("same")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_session_is_sent_to_other_processes(path: Path, method: str) -> None:
    script = path.with_name("sending.py")
    script.write_text(textwrap.dedent(MULTIPROCESSING))
    done = subprocess.run(
        [sys.executable, str(script), str(path), "auto", method],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "same\n", done.stderr


FORK_DURING_LOAD = """
    import os, signal, sys, threading, warnings
    import numpy as np
    import bitinfer

    warnings.simplefilter("ignore", DeprecationWarning)  # that threads are alive is the point
    path, backend = sys.argv[1], sys.argv[2]
    x = np.zeros((1, 9, 8, 3), np.float32)
    stop = threading.Event()

    def load_and_run():
        return bitinfer.load(path, backend, threads=2).run(x)

    def keep_loading():
        while not stop.is_set():
            load_and_run()

    load_and_run()
    threads = [threading.Thread(target=keep_loading) for _ in range(2)]
    for thread in threads:
        thread.start()
    hung = 0
    for _ in range(30):
        if (child := os.fork()) == 0:
            signal.alarm(60)
            load_and_run()
            os._exit(0)
        hung += os.waitpid(child, 0)[1] != 0
    stop.set()
    for thread in threads:
        thread.join()
    print(hung)
"""


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_children_forked_while_threads_load_can_load(path: Path, backend: str) -> None:
    assert run_script(FORK_DURING_LOAD, path, backend) == "0\n"


def test_a_module_that_is_not_there_is_missed_without_the_lock_of_its_name() -> None:
    script = """
    import importlib._bootstrap, threading
    from bitinfer.backends.base import import_present

    def take():
        lock.acquire()
        taken.set()
        threading.Event().wait()

    lock, taken = importlib._bootstrap._get_module_lock("no_such_module"), threading.Event()
    threading.Thread(target=take, daemon=True).start()
    taken.wait()
    try:
        import_present("no_such_module")
    except ModuleNotFoundError as error:
        print(error.name)
    """
    assert run_script(script, timeout=60) == "no_such_module\n"


# --- pickling ------------------------------------------------------------------------------------


def test_a_loaded_session_is_pickled_as_its_path(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    session = bitinfer.load("m.bin", backend="reference", threads=2)
    assert session.path == path
    data = pickle.dumps(session)
    assert len(data) < 1000
    monkeypatch.chdir("/")
    copy = pickle.loads(data)
    assert (copy.backend, copy.threads, copy.path) == ("reference", 2, path)
    x = np.ones((2, 9, 8, 3))
    for name, value in session.run(x).items():
        assert np.array_equal(copy.run(x)[name], value)
    assert pickle.loads(pickle.dumps(copy)).path == path


def test_a_backend_chosen_by_itself_is_chosen_again(path: Path) -> None:
    copy = pickle.loads(pickle.dumps(bitinfer.load(path, threads=0)))
    assert copy.backend == bitinfer.load(path).backend


def test_a_session_without_a_file_cannot_be_pickled() -> None:
    b = GraphBuilder("g", (4,))
    session = Session(Model(*b.build(b.relu(b.input))))
    assert session.path is None
    with pytest.raises(PicklingError, match=r"bitinfer\.modelfile\.save") as caught:
        pickle.dumps(session)
    assert isinstance(caught.value, BitInferError)
    assert isinstance(caught.value, TypeError)


def test_another_file_in_the_place_of_the_pickled_one_is_refused(path: Path) -> None:
    data = pickle.dumps(bitinfer.load(path))
    b = GraphBuilder("g", (4,))
    modelfile.save(Model(*b.build(b.relu(b.input))), path)
    with pytest.raises(ModelFileError, match="not the file that the pickled session"):
        pickle.loads(data)
    path.unlink()
    with pytest.raises(ModelFileError, match="No such file"):
        pickle.loads(data)


def test_a_backend_that_is_not_there_is_refused_when_unpickling(path: Path) -> None:
    data = pickle.dumps(bitinfer.load(path, backend="reference"))
    with pytest.raises(BackendError):
        pickle.loads(data.replace(b"\x8c\treference", b"\x8c\tno_such_b"))
