#!/bin/bash
# Says something, then never ends.
echo "still here"
exec sleep infinity
