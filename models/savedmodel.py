"""ONNX → TensorFlow's SavedModel, and back to numbers. Runs in an environment of its own, and imports nothing of upres.

    python savedmodel.py convert GRAPH.onnx FOLDER
    python savedmodel.py run FOLDER IMAGES.npz RESULTS.npz

onnx2tf, the converter that is maintained, refs numpy 1 and a TensorFlow to match; upres has numpy 2. So it is installed
apart: pip install -r models/requirements-savedmodel.txt
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def convert(graph: str, folder: str) -> None:
    """The graph as a SavedModel, with names and axes as they are in the graph."""
    import onnx2tf

    onnx2tf.convert(
        input_onnx_file_path=graph,
        output_folder_path=folder,
        keep_shape_absolutely_input_names=["image"],  # it would take the image for NCHW
        verbosity="error",
    )


def run(folder: str, images: str, results: str) -> None:
    """Each array of IMAGES through the model: NAME → NAME.enlarged and NAME.exact."""
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
