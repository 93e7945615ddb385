"""Several processes: started here for `--devices N`, or by torchrun, on one machine or many. The same from there on.

Each process reads from torchrun's environment variables (RANK, LOCAL_RANK, WORLD_SIZE …) who it is, whoever started it.
One that dies ends the run with its own error: the others are not left waiting for it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from unveil.data.streams import normalised
from unveil.errors import UserError
from unveil.fabric import import_fabric
from unveil.training.guards import Stop

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from unveil.recipe import Data

GRACE_SECONDS = 20
"""How long the other processes may take to end by themselves when one has failed."""

STRATEGIES = ("ddp", "fsdp")

T = TypeVar("T")


def launched() -> bool:
    """Whether this is one of several processes that torchrun (or `start`) made."""
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def rank() -> int:
    return int(os.environ["RANK"]) if launched() else 0


def start(function: Callable[[Any], None], argument: Any, count: int) -> None:
    """Run `function(argument)` in `count` new processes of this machine and wait for all of them.

    SIGTERM and Ctrl-C are handed on to them. Both arguments must be picklable.

    Raises:
        UserError: what one of them raised as such, or that one was ended by a signal.
        RuntimeError: another error of one of them, with its traceback.
    """
    import torch.multiprocessing as mp
    from torch.distributed import TCPStore
    from torch.multiprocessing.spawn import ProcessException

    # The store lives here, on a port that the system chose: none can be taken in between.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": "unveil",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
    }
    with tempfile.TemporaryDirectory(prefix="unveil-") as folder:
        context: Any = mp.start_processes(
            _child, (function, argument, common, folder), nprocs=count, join=False, start_method="spawn"
        )
        stop = Stop(lambda: [process.terminate() for process in context.processes if process.is_alive()])
        try:
            with stop.listening():
                while not context.join(timeout=1, grace_period=GRACE_SECONDS):
                    pass
        except ProcessException as error:
            if stop.asked and all(process.exitcode in (0, -signal.SIGTERM) for process in context.processes):
                raise SystemExit(0) from error  # asked to stop before it had begun
            raise _cause(Path(folder), context.processes, error) from error
        finally:
            for process in context.processes:
                if process.is_alive():
                    process.kill()
                process.join()
    if stop.asked:
        raise SystemExit(0)


def _child(local: int, function: Callable[[Any], None], argument: Any, common: dict[str, str], folder: str) -> None:
    os.environ.update(common, RANK=str(local), LOCAL_RANK=str(local))
    if "OMP_NUM_THREADS" not in os.environ:
        # As many threads as cores in each of them would wait for one another most of the time.
        torch.set_num_threads(max(1, torch.get_num_threads() // int(common["LOCAL_WORLD_SIZE"])))
    try:
        function(argument)
        leave()
    except Exception as error:
        failure = {"rank": local, "time": time.time(), "text": traceback.format_exc()}
        if isinstance(error, UserError):
            failure["user"] = str(error)
        Path(folder, f"{local}.json").write_text(json.dumps(failure), encoding="utf-8")
        sys.exit(2)


def _cause(folder: Path, processes: list[Any], error: Exception) -> Exception:
    """Of all that went wrong, what came first: when one process fails, the others fail for want of it."""
    failures = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    # Ours are ended with SIGTERM, or in the last resort with SIGKILL; then there is a failure that was written down.
    ended = [(i, -p.exitcode) for i, p in enumerate(processes) if p.exitcode is not None and p.exitcode < 0]
    killed = [(i, number) for i, number in ended if number != signal.SIGTERM]
    by_user = [failure for failure in failures if "user" in failure]
    if by_user:
        return UserError(min(by_user, key=lambda failure: failure["time"])["user"])
    if killed:
        number, name = killed[0][0], signal.Signals(killed[0][1]).name
        return UserError(
            f"process {number} of {len(processes)} was ended by {name}"
            f"{' (the machine may have run out of memory)' if name == 'SIGKILL' else ''}. The run has stopped; "
            "the same command goes on from the last checkpoint."
        )
    if failures:
        first = min(failures, key=lambda failure: failure["time"])
        return RuntimeError(f"process {first['rank']} of {len(processes)} failed:\n{first['text']}")
    return error


def join(device: torch.device) -> None:
    """Enter the group of processes that were launched together; once is enough."""
    if not launched() or torch.distributed.is_initialized():
        return
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")


def leave() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def on_first(function: Callable[[], T], device: torch.device) -> T:
    """What `function()` gives in the first process; the others wait for it and get the same, or the same error."""
    if not launched():
        return function()
    join(device)
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = function()
        except UserError as error:
            answer[1] = str(error)
    torch.distributed.broadcast_object_list(answer)
    if answer[1] is not None:
        raise UserError(answer[1])
    return answer[0]


def fabric(device: torch.device, precision: Any, strategy: str) -> Fabric:
    """Lightning's Fabric for this process, one of those that were launched together, or alone.

    Args:
        device: its type and, for one process, its index.
        precision: as Fabric names it.
        strategy: "ddp", every process holds the network; "fsdp", it is divided among them (FSDP2).

    Raises:
        UserError: no such strategy.
    """
    import_fabric()
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy

    if strategy not in STRATEGIES:
        raise UserError(f"--strategy {strategy}: unknown. Use {' or '.join(STRATEGIES)}.")
    if not launched():
        one: Any = 1 if device.index is None or device.type == "cpu" else [device.index]
        return Fabric(accelerator=device.type, devices=one, precision=precision)
    join(device)
    world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    divided = ModelParallelStrategy(_shard, data_parallel_size=world, tensor_parallel_size=1)
    return Fabric(
        accelerator=device.type,
        devices=local,
        num_nodes=world // local,
        precision=precision,
        strategy=divided if strategy == "fsdp" else DDPStrategy(),
        plugins=[TorchElasticEnvironment()],
    )


def _shard(module: nn.Module, mesh: Any) -> nn.Module:
    """Divide a network's parameters among the processes: those of each block together, then the rest."""
    from torch.distributed.fsdp import fully_shard

    mesh = mesh["data_parallel"]
    for part in module.modules():
        blocks = getattr(part, "blocks", None)
        if isinstance(blocks, nn.ModuleList):
            for block in blocks:
                fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def synchronised(fabric: Fabric, network: nn.Module) -> None:
    """Let batch norms see the micro-batches of all processes at once, where there are several.

    Raises:
        UserError: not on GPUs.
    """
    if fabric.world_size == 1:
        return
    if fabric.device.type != "cuda":
        raise UserError(
            f"--sync-batch-norm: PyTorch can do this on CUDA devices only, not on {fabric.device.type}. Leave it out: each "
            "process then takes the statistics of its own samples; more --loader.batch makes them better."
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(network)  # inside; a network is no batch norm itself


def placed(fabric: Fabric, network: nn.Module) -> nn.Module:
    """A second network of the same build, on the device, or divided as the first one was; it is not trained."""
    from lightning_fabric.strategies import ModelParallelStrategy

    if isinstance(fabric.strategy, ModelParallelStrategy):
        return _shard(network, fabric.strategy.device_mesh)
    return network.to(fabric.device)


@contextmanager
def gathered(network: nn.Module) -> Iterator[None]:
    """Inside, a divided network can be called part by part; every process has to enter. Any other is left as it is."""
    from torch.distributed.fsdp import FSDPModule

    shards = [module for module in network.modules() if isinstance(module, FSDPModule)]
    for shard in shards:
        shard.unshard()
    try:
        yield
    finally:
        for shard in shards:
            shard.reshard()


def on_device(fabric: Fabric, data: Data, batch: Mapping[str, Any]) -> dict[str, Any]:
    """A micro-batch of the loader → on the device, as the network takes it."""
    there = {name: fabric.to_device(x) if isinstance(x, torch.Tensor) else x for name, x in batch.items()}
    return normalised(data, there)


def any_of(fabric: Fabric, *flags: bool) -> list[bool]:
    """For each flag, whether it is set in any of the processes."""
    if fabric.world_size == 1:
        return list(flags)
    total: Any = fabric.all_reduce(torch.tensor([float(flag) for flag in flags], device=fabric.device), reduce_op="sum")
    return (total > 0).tolist()


def all_of(fabric: Fabric, items: list[T]) -> list[T]:
    """The items of all processes, in the order of their ranks."""
    if fabric.world_size == 1:
        return items
    gathered: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]
