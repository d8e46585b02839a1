"""Your project: what you change. The library behind it is ``trainyard``."""

from trainyard import Project

project = Project(
    __name__,
    config=".train:Config",
    run=".train:train",
    sources={"sqlite": ".data:read_sqlite"},
    metrics={"balanced_accuracy": ".metrics:balanced_accuracy"},
    models={
        "resnet": ".models.resnet:ResNetConfig",
        "torchvision": "trainyard.models.torchvision:TorchvisionConfig",
        "bert": ".models.bert:BertConfig",
        "rnn": ".models.rnn:RnnConfig",
    },
    templates="templates",
)
