def say(number, unit, again):
    return f"{number} {unit} in run {again}"
