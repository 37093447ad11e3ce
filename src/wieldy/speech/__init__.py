"""Audio in, attributed written words out. `meeting.transcribe` is the main job; the other modules are its stages."""
