"""Networks of the speech room, as torch modules. They need `wieldy[torch]`; the main job runs exported ONNX files."""
