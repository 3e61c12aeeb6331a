"""Image folders: reads their Dockerfiles, and builds, pushes and records the images of operators."""
