"""The plain loop that the benchmarks compare with, written from the published algorithm as its authors run it.

Real clips are float32 in memory and are stacked one by one, class by class; a new network is built for every iteration;
the losses of all classes are summed before one backward pass; the optimizer holds all pixels. PRISM on top of it is
written as the paper describes it: frame by frame. Networks are trained through a DataLoader and tested by three random
passes.
"""
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.utils.data import DataLoader, TensorDataset


def build_features(width):
    """Build miniC3D's feature extractor from plain layers."""
    first, second = int(64 * width), int(128 * width)
    layers, inputs = [], 3
    for outputs, pool in ((first, 1), (second, 2), (second, 2)):
        conv = nn.Conv3d(inputs, outputs, (3, 7, 7), (1, 2, 2), (1, 3, 3))
        layers += [conv, nn.ReLU(), nn.MaxPool3d((pool, 2, 2))]
        inputs = outputs
    return nn.Sequential(*layers)


def build_head(features, classes, frames, size):
    """Build miniC3D's classification head."""
    _, channels, time, height, _ = features(torch.zeros(1, 3, frames, size, size)).shape
    pool = nn.AvgPool3d((min(2, time), height, height), 1)
    return nn.Sequential(pool, nn.Dropout(0.5), nn.Conv3d(channels, classes, 1))


def embed(features, videos):
    """Compute feature vectors (B,D) of videos (B,T,3,H,W)."""
    return features(videos.transpose(1, 2)).flatten(1)


def interpolate_keys(keys):
    """Interpolate key frames {index: frame} linearly to a dense video."""
    indices = sorted(keys)
    video = [keys[indices[0]]]
    for left, right in zip(indices, indices[1:]):
        for t in range(left + 1, right):
            alpha = (right - t) / (right - left)
            video.append(alpha * keys[left] + (1 - alpha) * keys[right])
        video.append(keys[right])
    return torch.stack(video)


class ReferenceCondenser:
    """Condense clips in memory, [(n,T,3,H,W) float32 per class], by DM, or by PRISM."""

    def __init__(self, clips, vpc, prism, batch, width, device="cpu", lr=1e-3):
        self.clips, self.vpc, self.prism = clips, vpc, prism
        self.batch, self.width, self.device = batch, width, device
        _, self.frames, _, self.size, _ = clips[0].shape
        shape = (len(clips), vpc, self.frames, 3, self.size, self.size)
        self.pixels = torch.randn(shape, device=device).requires_grad_()
        first_keys = {0, self.frames - 1} if prism else set(range(self.frames))
        self.keys = [[set(first_keys) for _ in range(vpc)] for _ in clips]
        self.optimizer = torch.optim.SGD([self.pixels], lr, momentum=0.95)

    def videos(self, label):
        """Compute the dense videos of a class."""
        if not self.prism:
            return self.pixels[label]
        keys = [{t: self.pixels[label, j, t] for t in self.keys[label][j]} for j in range(self.vpc)]
        return torch.stack([interpolate_keys(frames) for frames in keys])

    def sample_real(self, label):
        """Draw real clips of a class, half of them flipped."""
        chosen = torch.randperm(len(self.clips[label]))[: self.batch]
        clips = [self.clips[label][i] for i in chosen]
        return torch.stack([clip.flip(-1) if torch.rand(()) < 0.5 else clip for clip in clips]).to(self.device)

    def step(self):
        """Do one iteration and return its loss."""
        features = build_features(self.width).to(self.device).requires_grad_(False)
        loss, dense = 0.0, []
        for label in range(len(self.clips)):
            with torch.no_grad():
                real = embed(features, self.sample_real(label))
            dense.append(self.videos(label))
            if self.prism:
                dense[-1].retain_grad()
            loss = loss + (real.mean(0) - embed(features, dense[-1]).mean(0)).square().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.prism:
            for label in range(len(self.clips)):
                for j in range(self.vpc):
                    self.insert(label, j, dense[label].grad[j], dense[label][j].detach())
        return loss.item()

    def insert(self, label, j, gradient, video):
        """Insert the frames whose gradient opposes those of both neighbouring key frames."""
        keys, new = sorted(self.keys[label][j]), set()
        for left, right in zip(keys, keys[1:]):
            for t in range(left + 1, right):
                neighbours = [gradient[k].flatten() for k in (left, right)]
                if all(cosine_similarity(gradient[t].flatten(), neighbour, dim=0) < 0 for neighbour in neighbours):
                    new.add(t)
                    self.pixels.data[label, j, t] = video[t]
        self.keys[label][j] |= new


class ReferenceEvaluator:
    """Train a network on videos through a DataLoader, and test it."""

    def __init__(self, videos, labels, test, test_labels, batch, width, device="cpu"):
        self.train_loader = DataLoader(TensorDataset(videos, labels), batch, shuffle=True)
        self.test_loader = DataLoader(TensorDataset(test, test_labels), batch)
        self.device = device
        features = build_features(width)
        head = build_head(features, int(labels.max()) + 1, videos.shape[1], videos.shape[3])
        self.features, self.head = features.to(device), head.to(device)
        parameters = [*features.parameters(), *head.parameters()]
        self.optimizer = torch.optim.SGD(parameters, 0.01, 0.9, weight_decay=5e-4)

    def logits(self, videos):
        """Compute logits (B,classes) of videos (B,T,3,H,W)."""
        return self.head(self.features(videos.transpose(1, 2))).amax(2).flatten(1)

    def epoch(self):
        """Train for one epoch."""
        self.features.train()
        self.head.train()
        for videos, labels in self.train_loader:
            loss = cross_entropy(self.logits(videos.to(self.device)), labels.to(self.device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()

    def test(self):
        """Compute the accuracy in per cent, the mean of three passes over randomly flipped clips."""
        self.features.eval()
        self.head.eval()
        correct = n = 0
        with torch.no_grad():
            for _ in range(3):
                for videos, labels in self.test_loader:
                    flip = torch.rand(len(videos)) < 0.5
                    videos = torch.where(flip[:, None, None, None, None], videos.flip(-1), videos)
                    correct += (self.logits(videos.to(self.device)).argmax(1).cpu() == labels).sum().item()
                    n += len(labels)
        return 100 * correct / n
