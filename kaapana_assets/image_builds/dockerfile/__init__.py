"""Reads a Dockerfile as Docker does, as far as that is possible without a container.

    instructions    text -> instructions: continuation, comments, parser directives, here-documents
    variables       quotes, escapes and ``${name:-default}`` in the words of an instruction
    shell_commands  the commands in the shell text of a RUN; installations by pip and uv
    run_instruction the effect of a RUN: Python packages, folders, modes
    tree            the files of an image or of a build context, by absolute path
    stages          the build stages: start, environment, files, packages, findings
    findings        the instructions that are not applied, with their severity

No library on PyPI is sufficient: dockerfile-parse 2.0.1 supports neither here-documents nor ``# escape=``
nor the scopes of ARG; dockerfile 3.4.0 returns only the words of each instruction and needs Go to build.
No module of this folder starts a process or copies a file.
"""
