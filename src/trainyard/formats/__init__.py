"""The formats that a model is exported to, one class in one file each; ``table`` lists them, ``making`` holds the work.

Nothing here imports torch, onnx or onnxruntime before a format is made or opened: most servers have only one of them.
"""
