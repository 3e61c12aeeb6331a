def listed(folder):
    return sorted(path.name for path in folder.glob("**/*.dcm"))
