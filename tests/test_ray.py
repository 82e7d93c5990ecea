"""Runs on a real Ray cluster of two nodes on this machine: what is lost is made again, and nothing is written twice."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from test_scaling import LONG, ROOT, arguments, draw, end, start, wait_for
from test_shards import names_in, results

ray = pytest.importorskip("ray", reason="needs ray: pip install '.[ray]'")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch):
    """A head and a second node, one CPU each, which listen on this machine alone."""
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # The nodes' processes find our own modules by themselves.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.second = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()


def on_ray(weights, pictures, out, *more):
    return start(arguments(weights, pictures, out, "--engine", "ray", *more))


def actors(cluster):
    """The numbers of the processes that work for a run."""
    parents = {
        process.process.pid for node in cluster.list_all_nodes() for process in node.all_processes.get("raylet", ())
    }
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, status = (path / "cmdline").read_bytes(), (path / "stat").read_text()
        except OSError:  # it has ended
            continue
        if command.startswith(b"ray::Worker") and int(status.rpartition(")")[2].split()[1]) in parents:
            found.append(int(path.name))
    return found


def finished(out):
    return len(list((out / "images").rglob("metrics.json")))


def test_two_nodes_make_the_same_files_and_lose_nothing_with_one(tiny_weights, tmp_path, cluster):
    """Equal to the last bit with a run of one process, first with both nodes, then with one killed on the way."""
    pictures, out = draw(tmp_path / "pictures", 24), tmp_path / "out"
    end(start(arguments(tiny_weights, pictures, tmp_path / "one", *LONG)))
    expected = results(tmp_path / "one")
    process = on_ray(tiny_weights, pictures, out, *LONG)
    wait_for(lambda: len(actors(cluster)) == 2 and finished(out) >= 4, process)
    cluster.remove_node(cluster.second, allow_graceful=False)
    text = end(process)
    assert "[24/24]" in text
    assert "Traceback" not in text and "raylet" not in text
    assert results(out) == expected
    for name in ("summary.json", "summary.csv"):
        assert (out / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert "24 of 24 images are done already" in end(on_ray(tiny_weights, pictures, out, *LONG))


def test_actors_killed_at_random_moments_and_images_that_fail(tiny_weights, tmp_path, cluster):
    """Ten kills lose nothing; a picture that ends its process is given up by name, one that cannot be read too."""
    pictures, out, chance = draw(tmp_path / "pictures", 24), tmp_path / "out", random.Random(0)
    (pictures / "007.png").write_bytes(b"no picture")
    callback = "--trainer.callbacks+=user_callback.Ends"
    end(start(arguments(tiny_weights, pictures, tmp_path / "one", *LONG)), 1)
    expected = results(tmp_path / "one")
    expected.pop("003")
    parquet = ["--out_format", "parquet", callback]
    process = on_ray(tiny_weights, pictures, out, *LONG, *parquet)
    killed = 0
    while killed < 10 and process.poll() is None:
        time.sleep(chance.uniform(0.2, 1.5))
        if found := actors(cluster):
            os.kill(chance.choice(found), signal.SIGKILL)
            killed += 1
    text = end(process, 1)
    assert killed == 10
    failed = json.loads((out / "summary.json").read_text())["failed"]
    assert sorted(failed) == ["003", "007"]
    assert "its process was lost 3 times" in failed["003"]
    assert "UnidentifiedImageError" in failed["007"]
    assert "failed: 003" in text and "failed: 007" in text
    assert results(out) == expected
    assert sorted(names_in(out)) == sorted(expected)


@pytest.mark.parametrize("form", ["folders", "parquet"])
def test_a_killed_driver_goes_on(tiny_weights, tmp_path, cluster, form):
    pictures, out = draw(tmp_path / "pictures", 12), tmp_path / "out"
    end(start(arguments(tiny_weights, pictures, tmp_path / "one", *LONG)))
    more = [*LONG, "--out_format", form, "--trainer.callbacks+=user_callback.SmallShards"]

    def done():
        return finished(out) if form == "folders" else len(list((out / "shards").glob("part-*")))

    for _ in range(2):
        process, before = on_ray(tiny_weights, pictures, out, *more), done() if out.exists() else 0
        wait_for(lambda before=before: out.exists() and done() > before, process)
        process.kill()
        process.communicate()
    text = end(on_ray(tiny_weights, pictures, out, *more))
    assert "of 12 images are done already" in text
    assert results(out) == results(tmp_path / "one")
    if form == "parquet":
        assert sorted(names_in(out)) == [f"{i:03}" for i in range(12)]


def test_a_cluster_of_ones_own_listens_on_this_machine_alone_and_ends_by_sigterm(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    pictures, out = draw(tmp_path / "pictures", 40), tmp_path / "out"
    process = on_ray(tiny_weights, pictures, out, *LONG, "--json")
    wait_for(lambda: finished(out) >= 1, process)
    own = {process.pid}
    for _ in range(6):  # generations
        own |= {int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if parent(path) in own}
    assert len(own) > 3
    held = {os.readlink(link) for pid in own for link in descriptors(pid)}
    for table, local in (("tcp", "0100007F"), ("tcp6", "0000000000000000FFFF00000100007F")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in held:
                address = words[1].partition(":")[0]
                assert address in (local, "00000000000000000000000001000000"), line
    process.terminate()
    text = end(process, 143)
    assert text.count("\n") >= 1
    assert "ended by SIGTERM" in text and "of 40 images are done" in text
    assert "Traceback" not in text


def parent(stat):
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def descriptors(pid):
    found = []
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                os.readlink(link)
            except OSError:
                continue
            found.append(link)
    except OSError:
        pass
    return found


def test_actors_that_cannot_be_made_end_the_run(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    pictures, out = draw(tmp_path / "pictures", 1), tmp_path / "out"
    text = end(on_ray(tiny_weights, pictures, out, "--trainer.callbacks+=user_callback.OnlyHere"), 2)
    assert "no actor of Ray can be started" in text
    assert "No module named 'only_here'" in text
    assert "Traceback" not in text


def test_an_address_where_no_cluster_is(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    text = end(on_ray(tiny_weights, draw(tmp_path / "pictures", 1), tmp_path / "out"), 2)
    assert "no Ray cluster at 127.0.0.1:1" in text
    assert "Traceback" not in text
