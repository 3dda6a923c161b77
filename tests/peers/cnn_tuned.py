"""The CNN of recipes/fashion_mnist_cnn.yaml at PyTorch's best without compile (which is slower here): data
normalised once and kept in memory, batches by index, channels-last, fused AdamW."""
import torch

import cnn_net


def batches(images, labels, size):
    while True:
        order = torch.randperm(len(images))
        for begin in range(0, len(images) - size + 1, size):
            index = order[begin:begin + size]
            yield images[index], labels[index]


args = cnn_net.arguments(__doc__)
images, labels = cnn_net.read_training_data(args.data)
images = ((images.unsqueeze(1).float() / 255 - cnn_net.MEAN) / cnn_net.STD).contiguous(
    memory_format=torch.channels_last)
model = cnn_net.Cnn().to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.05, fused=True)
cnn_net.measure(args, model, optimizer, batches(images, labels, args.batch))
