"""A project as small as can be: the library's tests stand on it, and on nothing of the owner's."""

from trainyard import Project

project = Project(
    __name__,
    config=".train:Config",
    run=".train:train",
    models={
        "cnn": ".models:CnnConfig",
        "torchvision": "trainyard.models.torchvision:TorchvisionConfig",
        "encoder": ".encoder:EncoderConfig",
    },
)
