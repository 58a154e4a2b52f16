"""Small copies of the official layouts: real annotation formats, real video files of a few blocks that move."""
import json

import numpy as np

from prism_nb.data.video import write_video


def write_clip(path, seed, frames=20):
    """Write a video of a block that crosses a textured background of 64×48 pixels."""
    rng = np.random.default_rng(seed)
    background = rng.integers(0, 200, (1, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    video = np.repeat(background, frames, 0)
    for t, frame in enumerate(video):
        frame[16:28, 2 * t : 2 * t + 12] = rng.integers(200, 256, 3)
    write_video(path, video)


def write_clips(root, names):
    """Write one video per name."""
    for i, name in enumerate(names):
        write_clip(root / name, [len(str(root)), i])


def write_lines(path, lines, end="\n"):
    """Write an annotation file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode())


def ucf101(root, end="\r\n"):
    """UCF-101/ and ucfTrainTestlist/; two classes of miniUCF and one that is not in it."""
    classes = ["ApplyEyeMakeup", "BalanceBeam", "YoYo"]
    clips = [f"{c}/v_{c}_g{g:02}_c01.avi" for c in classes for g in (1, 2, 8, 9, 10)]
    write_clips(root / "UCF-101", clips)
    test = [name for name in clips if name[-11:-8] in ("g01", "g02")]
    train = [f"{name} {classes.index(name.split('/')[0]) + 1}" for name in clips if name not in test]
    lists = root / "ucfTrainTestlist"
    write_lines(lists / "classInd.txt", [f"{i} {c}" for i, c in enumerate(classes, 1)], end)
    for split_id in (1, 2, 3):
        write_lines(lists / f"testlist{split_id:02}.txt", test, end)
        write_lines(lists / f"trainlist{split_id:02}.txt", train, end)


def hmdb51(root):
    """A folder per class and testTrainMulti_7030_splits/; 1 trains, 2 tests, 0 does neither."""
    sources = ("April_09", "Café", "x+y@z")
    for c in ("brush_hair", "wave"):
        clips = [f"{source} (1)!_{c}_u_nm_np1_ba_goo_{i}.avi" for source in sources for i in (0, 1)]
        write_clips(root / c, clips)
        lines = [f"{name} {split} " for name, split in zip(clips, (1, 1, 1, 0, 2, 2))]
        for split_id in (1, 2, 3):
            write_lines(root / "testTrainMulti_7030_splits" / f"{c}_test_split{split_id}.txt", lines)


def kinetics400(root):
    """train/, val/ and their CSV files; of the listed clips one is missing, one too short and one broken."""
    classes = {"abseiling": "ab-_cdefgh{}", "massaging person's head": "mn_opqr-st{}"}
    header = "label,youtube_id,time_start,time_end,split,is_cc"
    for split, numbers in (("train", range(5)), ("val", range(5, 7))):
        rows = [(label, name.format(i), 7 * i, 7 * i + 10) for label, name in classes.items() for i in numbers]
        lines = [f'"{label}",{clip},{start},{end},{split},0' for label, clip, start, end in rows]
        write_lines(root / f"{split}.csv", [header, *lines])
        write_clips(root / split, [f"{clip}_{start:06}_{end:06}.mp4" for _, clip, start, end in rows])
    missing, short, *_, broken = sorted((root / "train").iterdir())
    missing.unlink()
    write_clip(short, 0, frames=5)
    broken.write_bytes(broken.read_bytes()[:500])


def ssv2(root):
    """20bn-something-something-v2/ and the JSON files, as the download names them."""
    templates = ["Putting [something] on a surface", "Pretending to be tearing [something that is not tearable]"]
    names = [template.replace("[", "").replace("]", "") for template in templates]
    prefix = root / "labels" / "something-something-v2"

    def entry(split, i):
        if split == "test":
            return {"id": str(i)}
        label, template = "putting a cup on a surface", templates[i % 2]
        return {"id": str(i), "label": label, "template": template, "placeholders": ["a cup"]}

    write_lines(prefix.with_name(prefix.name + "-labels.json"), [json.dumps({n: str(i) for i, n in enumerate(names)})])
    for split, ids in (("train", range(6)), ("validation", range(6, 10)), ("test", range(10, 12))):
        entries = [entry(split, i) for i in ids]
        write_lines(prefix.with_name(f"{prefix.name}-{split}.json"), [json.dumps(entries)])
    write_clips(root / "20bn-something-something-v2", [f"{i}.webm" for i in range(12)])
