"""The CNN of recipes/fashion_mnist_cnn.yaml as most people write it: a data set of single images behind a
DataLoader, NCHW, AdamW as it comes."""
import torch
from torch.utils.data import DataLoader, Dataset

import cnn_net


class FashionMnist(Dataset):
    def __init__(self, folder):
        self.images, self.labels = cnn_net.read_training_data(folder)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return (self.images[i].unsqueeze(0).float() / 255 - cnn_net.MEAN) / cnn_net.STD, self.labels[i]


def forever(loader):
    while True:
        yield from loader


args = cnn_net.arguments(__doc__)
model = cnn_net.Cnn()
optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.05)
cnn_net.measure(args, model, optimizer, forever(DataLoader(FashionMnist(args.data), args.batch, shuffle=True)))
