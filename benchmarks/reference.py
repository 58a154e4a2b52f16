"""The plain loop that the benchmarks compare with, written from the published algorithm as its authors run it.

Real clips are float32 in memory and are stacked one by one, class by class; a network is made anew for every iteration;
all classes' losses are summed before one backward pass; the optimizer holds all pixels. PRISM on top of it is written
as the paper says it: frame by frame. Networks are trained through a DataLoader and tested by three random passes.
"""
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.utils.data import DataLoader, TensorDataset


def features_of(width):
    """miniC3D's features from plain layers."""
    a, b = int(64 * width), int(128 * width)
    layers, inputs = [], 3
    for outputs, pool in ((a, 1), (b, 2), (b, 2)):
        layers += [nn.Conv3d(inputs, outputs, (3, 7, 7), (1, 2, 2), (1, 3, 3)), nn.ReLU(), nn.MaxPool3d((pool, 2, 2))]
        inputs = outputs
    return nn.Sequential(*layers)


def head_of(features, classes, frames, size):
    """Its head."""
    _, channels, time, height, _ = features(torch.zeros(1, 3, frames, size, size)).shape
    return nn.Sequential(nn.AvgPool3d((min(2, time), height, height), 1), nn.Dropout(0.5), nn.Conv3d(channels, classes, 1))


def embed(features, videos):
    return features(videos.transpose(1, 2)).flatten(1)


def between(keys):
    """Key frames {place: frame} as a whole video, the frames between them on a line."""
    places = sorted(keys)
    video = [keys[places[0]]]
    for left, right in zip(places, places[1:]):
        for t in range(left + 1, right):
            alpha = (right - t) / (right - left)
            video.append(alpha * keys[left] + (1 - alpha) * keys[right])
        video.append(keys[right])
    return torch.stack(video)


class Loop:
    """DM, or with `prism` PRISM, on clips in memory: [(n,T,3,H,W) float32 of each class]."""

    def __init__(self, clips, vpc, prism, batch, width, device="cpu", lr=1e-3):
        self.clips, self.vpc, self.prism, self.batch, self.width, self.device = clips, vpc, prism, batch, width, device
        _, self.frames, _, self.size, _ = clips[0].shape
        shape = (len(clips), vpc, self.frames, 3, self.size, self.size)
        self.pixels = torch.randn(shape, device=device).requires_grad_()
        self.keys = [[{0, self.frames - 1} if prism else set(range(self.frames)) for _ in range(vpc)] for _ in clips]
        self.optimizer = torch.optim.SGD([self.pixels], lr, momentum=0.95)

    def videos(self, label):
        if not self.prism:
            return self.pixels[label]
        return torch.stack([between({t: self.pixels[label, j, t] for t in self.keys[label][j]}) for j in range(self.vpc)])

    def real(self, label):
        chosen = torch.randperm(len(self.clips[label]))[: self.batch]
        clips = torch.stack([self.clips[label][i].flip(-1) if torch.rand(()) < 0.5 else self.clips[label][i] for i in chosen])
        return clips.to(self.device)

    def step(self):
        features = features_of(self.width).to(self.device).requires_grad_(False)
        loss, played = 0.0, []
        for label in range(len(self.clips)):
            with torch.no_grad():
                real = embed(features, self.real(label))
            played.append(self.videos(label))
            if self.prism:
                played[-1].retain_grad()
            loss = loss + (real.mean(0) - embed(features, played[-1]).mean(0)).square().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.prism:
            for label in range(len(self.clips)):
                for j in range(self.vpc):
                    self.insert(label, j, played[label].grad[j], played[label][j].detach())
        return loss.item()

    def insert(self, label, j, gradient, video):
        keys, new = sorted(self.keys[label][j]), set()
        for left, right in zip(keys, keys[1:]):
            for t in range(left + 1, right):
                if all(cosine_similarity(gradient[t].flatten(), gradient[k].flatten(), dim=0) < 0 for k in (left, right)):
                    new.add(t)
                    self.pixels.data[label, j, t] = video[t]
        self.keys[label][j] |= new


class Judge:
    """A network trained on some videos through a DataLoader, and tested."""

    def __init__(self, videos, labels, test, test_labels, batch, width, device="cpu"):
        self.train_loader = DataLoader(TensorDataset(videos, labels), batch, shuffle=True)
        self.test_loader, self.device = DataLoader(TensorDataset(test, test_labels), batch), device
        features = features_of(width)
        head = head_of(features, int(labels.max()) + 1, videos.shape[1], videos.shape[3])
        self.features, self.head = features.to(device), head.to(device)
        self.optimizer = torch.optim.SGD([*features.parameters(), *head.parameters()], 0.01, 0.9, weight_decay=5e-4)

    def logits(self, videos):
        return self.head(self.features(videos.transpose(1, 2))).amax(2).flatten(1)

    def epoch(self):
        self.features.train(), self.head.train()
        for videos, labels in self.train_loader:
            loss = cross_entropy(self.logits(videos.to(self.device)), labels.to(self.device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()

    def test(self):
        """Accuracy in per cent, the mean of three passes over clips that are flipped at random."""
        self.features.eval(), self.head.eval()
        right = n = 0
        with torch.no_grad():
            for _ in range(3):
                for videos, labels in self.test_loader:
                    flip = torch.rand(len(videos)) < 0.5
                    videos = torch.where(flip[:, None, None, None, None], videos.flip(-1), videos)
                    right += (self.logits(videos.to(self.device)).argmax(1).cpu() == labels).sum().item()
                    n += len(labels)
        return 100 * right / n
