"""Your project: what you change. The library behind it is ``trainyard``."""

from trainyard import Project

project = Project(
    __name__,
    models={
        "resnet": "trainyard.models.resnet:ResNetConfig",
        "torchvision": "trainyard.models.torchvision:TorchvisionConfig",
        "bert": "trainyard.models.bert:BertConfig",
        "rnn": "trainyard.models.rnn:RnnConfig",
    },
)
