"""What a Dockerfile says, read as Docker does, as far as that needs no Docker.

    instructions    text -> instructions: continuation, comments, parser directives, heredocs
    variables       quotes, escapes and ``${name:-default}`` in an instruction's words
    shell_commands  the commands of a RUN, and which of them install Python packages
    tree            the files of an image or of its build context, by their absolute paths
    stages          the stages: start, environment, files, packages, and what was not obeyed

The libraries of PyPI do not do: dockerfile-parse 2.0.1 knows no heredocs, no ``# escape=`` and no scopes
of ARG, and dockerfile 3.4.0 gives only the words of each instruction and has to be built with Go.
Nothing here starts or copies anything.
"""
