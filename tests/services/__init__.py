"""Real servers for tests and development, started from builds that are cached outside the checkout.

``service`` says what a service is, ``running`` starts one, ``kinds`` lists them, ``plugin`` has the
fixtures, and ``python -m services up`` (``make services``) brings up all that the machine can.
"""
