"""Machines, resolved settings and variables of torchrun used by the launcher's tests."""

from dataclasses import replace

from launcher.config.machine import Machine
from launcher.config.provenance import CliArgs
from launcher.config.resolve import resolve

LAPTOP = Machine(
    cores=2,
    ram_bytes=8 * 2**30,
    gpus=0,
    device="cpu",
    cpu_bf16=False,
    gpu_bf16=False,
    compiler=True,
)
NEW_CPU = replace(LAPTOP, cores=8, ram_bytes=32 * 2**30, cpu_bf16=True)
SERVER = replace(NEW_CPU, cores=64, ram_bytes=512 * 2**30, gpus=4, device="cuda", gpu_bf16=True)
ONE_GPU = replace(SERVER, gpus=1)


def resolved(
    *sets,
    model="language:tiny",
    mode=None,
    engine=None,
    configs=None,
    machine=LAPTOP,
    world_size=None,
    **options,
):
    """Settings of the arguments; `options` are short options by name: lr="1e-3" is --lr 1e-3."""
    cli_args = CliArgs(
        model=model,
        mode=mode,
        engine=engine,
        configs=configs or [],
        sets=sets,
        options={SHORT[name]: (f"--{name.replace('_', '-')}", o) for name, o in options.items()},
    )
    return resolve(cli_args, machine, world_size)


SHORT = {
    "lr": "optim.lr",
    "batch_size": "train.micro_batch",
    "nproc": "engine.nproc",
    "precision": "precision",
    "epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "data": "data.path",
    "seq_len": "data.seq_len",
}


def set_torchrun(monkeypatch, rank, size=2):
    """Set the variables that torchrun gives to `rank` of `size` processes on one machine."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(size))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(size))
    monkeypatch.setenv("MASTER_ADDR", "a")
    monkeypatch.setenv("MASTER_PORT", "1")
