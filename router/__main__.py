"""python -m router."""

from router.cli.app import main

main()
