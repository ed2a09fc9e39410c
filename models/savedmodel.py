"""Converts ONNX to TensorFlow's SavedModel, and runs it. Runs in an environment of its own, imports nothing of upres.

    python savedmodel.py convert GRAPH.onnx FOLDER
    python savedmodel.py run FOLDER IMAGES.npz RESULTS.npz

onnx2tf, the only maintained converter, requires numpy 1 and a matching TensorFlow; upres uses numpy 2. So it has an
environment of its own: pip install -r models/requirements-savedmodel.txt
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def convert(graph: str, folder: str) -> None:
    """Convert a graph to a SavedModel with the same names and axes."""
    import onnx2tf

    onnx2tf.convert(
        input_onnx_file_path=graph,
        output_folder_path=folder,
        keep_shape_absolutely_input_names=["image"],  # otherwise it converts the input from NCHW to NHWC
        verbosity="error",
    )


def run(folder: str, images: str, results: str) -> None:
    """Run the model on each array in IMAGES; writes NAME.enlarged and NAME.exact for each array NAME."""
    import numpy as np
    import tensorflow as tf

    loaded = tf.saved_model.load(folder)
    infer = loaded.signatures["serving_default"]
    made = {}
    for name, image in np.load(images).items():
        for output, tensor in infer(image=tf.constant(image)).items():
            made[f"{name}.{output}"] = tensor.numpy()
    np.savez(results, **made)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
