"""What ``--help`` ends with: commands that work."""

from collections.abc import Mapping, Sequence

Examples = Sequence[tuple[str, str]]
"""Commands, each with what it does."""

FIRST: Examples = [
    ("splitleak run quick", "the built-in plan: a few minutes"),
    ("splitleak list attacks", "what a plan can name"),
    ("splitleak run --help", "each command has examples of its own"),
]
EXAMPLES: Mapping[str, Examples] = {
    "run": [
        ("splitleak run quick", "a built-in plan"),
        ("splitleak run mine.toml --dry-run", "the matrix, and what would be computed"),
        ("splitleak run mine.toml", "run it; again, to go on where it stopped"),
        ("splitleak run mine.toml --retry failed", "the failed cells again"),
        ("splitleak run mine.toml --executor processes --workers 4", "four at a time"),
        ("splitleak run mine.toml --cache-limit 20GB", "give disk back while it runs"),
        ("splitleak run mine.toml --tensorboard", "curves and scores: tensorboard --logdir runs/mine"),
    ],
    "report": [("splitleak report runs/quick", "write runs/quick/index.html again")],
    "export": [
        ("splitleak export runs/quick", "to MLflow, in the folder mlruns"),
        ("splitleak export runs/quick --tracking-uri http://localhost:5000", "to a server"),
    ],
    "archive": [
        ("splitleak archive runs/quick", "quick.json.xz: every number, no photo"),
        ("splitleak archive runs/cuts --file results/cuts.json.xz", "all victims of a study"),
    ],
    "restore": [("splitleak restore quick.json.xz --out elsewhere", "elsewhere/quick, for report and compare")],
    "compare": [
        ("splitleak compare runs/quick runs/changed", "which cells changed"),
        ("splitleak compare runs/quick runs/changed --csv changes.csv", "every comparison, in a file"),
    ],
    "board": [
        ("splitleak board results/*.json.xz", "board.html: every defence setting of all record files"),
        ("splitleak board runs/quick runs/mine --out mine.html", "of two runs"),
    ],
    "published": [
        ("splitleak published cifar_he runs/cifar_he", "He et al. 2019, their numbers beside ours"),
        ("splitleak published cifar_he results/cifar_he.json.xz", "of a record file"),
    ],
    "list": [
        ("splitleak list defenses", "names, and what each is"),
        ("splitleak list data", "data sets"),
        ("splitleak list plans", "the built-in plans"),
        ("splitleak list cards", "what sources claim, and what we measured of it"),
    ],
    "show": [
        ("splitleak show gaussian_noise", "a defence: its settings, its strength, its bytes"),
        ("splitleak show ridge", "an attack: its settings, what its adversary holds"),
    ],
    "explain": [
        ("splitleak explain", "every flag of a doubtful number"),
        ("splitleak explain not-converged", "one of them"),
    ],
    "cuts": [
        ("splitleak cuts mobilenet_v3_large --size 64", "where it can be split"),
        ("splitleak cuts resnet18", "at 224 pixels"),
    ],
    "profile": [
        ("splitleak profile mobilenet_v3_large", "every block's end, on the built-in faces"),
        ("splitleak profile resnet18 --data photos.zip --cuts layer1 layer2", "two cuts, on own photos"),
    ],
    "audit": [
        ("splitleak audit --model resnet18 --weights mine.pth --cut layer2 --data photos", "your weights and photos"),
        ("splitleak audit --model net.py:make --cut block3 --data photos.zip --budget 30", "your own network"),
    ],
    "reconstruct": [
        ("splitleak reconstruct runs/quick me.jpg", "your photo behind each defence"),
        ("splitleak reconstruct runs/quick me.jpg --defenses none --attacks decoder", "one attack"),
        ("splitleak reconstruct runs/quick me.jpg --defenses none --inside", "each stage of its decoders"),
    ],
    "deploy": [
        ("splitleak deploy runs/quick --defense none --out phone", "both halves, undefended"),
        ("splitleak deploy runs/quick --defense 'gaussian_noise sigma=2.0' --out phone", "a setting by its label"),
    ],
    "live": [
        ("splitleak live runs/quick --defense none", "all three here, and a page at http://127.0.0.1:8765/"),
        ("splitleak live runs/quick --defense none --tls", "encrypted: the interceptor sees sizes"),
        ("splitleak live realtime runs/quick", "photos a second at 1, 10 and 100 Mbit/s"),
    ],
    "check": [
        ("splitleak check mine.py", "do its attacks and defences keep their contract?"),
        ("splitleak check mine.json.xz", "may this record file be submitted?"),
    ],
    "new": [
        ("splitleak new defense my_noise", "my_noise.py, a defence that works"),
        ("splitleak new attack my_net --output attacks/my_net.py", "an attack, in a file of another name"),
        ("splitleak new task my_task", "my_task.py, what a victim predicts"),
    ],
    "--install-completion": [
        ("splitleak --install-completion", "for the shell that this is typed in"),
        ("splitleak --install-completion --shell fish", "for another one"),
    ],
}


def epilogue(examples: Examples) -> str:
    """What a help ends with, in Markdown."""
    width = max(len(command) for command, _ in examples)
    lines = [f"{command:<{width}}  # {what}" for command, what in examples]
    return "\n".join(["Examples:", "", "```", *lines, "```"])
