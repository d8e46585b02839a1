"""Your project: what you change. The library behind it is ``trainyard``."""

from trainyard.base.project import Project

project = Project(
    __name__,
    config=".train:Config",
    run=".train:train",
    sources={"sqlite": ".data:read_sqlite"},
    metrics={"balanced_accuracy": ".metrics:balanced_accuracy"},
    models={
        "resnet": "trainyard.models.resnet:ResNetConfig",
        "torchvision": "trainyard.models.torchvision:TorchvisionConfig",
        "bert": "trainyard.models.bert:BertConfig",
        "rnn": "trainyard.models.rnn:RnnConfig",
    },
)
