"""The CNN of cnn_tuned.py on two processes of one thread each: the time of a DistributedDataParallel step ÷ that of the
same step without communication, in alternating rounds; as JSON."""
import argparse
import json
import os
import statistics
import time

import torch
import torch.distributed
import torch.multiprocessing
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import cnn_net

WARM_UP, STEPS, ROUNDS = 20, 100, 5


def rank_main(rank, port, batch):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.manual_seed(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    images, labels = cnn_net.read_training_data(cnn_net.DATA)
    images = ((images.unsqueeze(1).float() / 255 - cnn_net.MEAN) / cnn_net.STD).contiguous(
        memory_format=torch.channels_last)

    def seconds(distributed):
        model = cnn_net.Cnn().to(memory_format=torch.channels_last)
        if distributed:
            model = DistributedDataParallel(model, gradient_as_bucket_view=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.05, fused=True)
        for step in range(WARM_UP + STEPS):
            if step == WARM_UP:
                torch.distributed.barrier()
                begin = time.perf_counter()
            index = torch.randint(len(images), (batch // 2,))
            loss = functional.cross_entropy(model(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (time.perf_counter() - begin) / STEPS

    together, alone = [], []
    for _ in range(ROUNDS):
        together.append(seconds(True))
        alone.append(seconds(False))
    if rank == 0:
        print(json.dumps({"ratio": statistics.median(together) / statistics.median(alone),
                          "step_s": statistics.median(together)}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128, help="of both processes")
    torch.multiprocessing.spawn(rank_main, (29400 + os.getpid() % 500, parser.parse_args().batch), nprocs=2)
