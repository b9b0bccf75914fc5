#!/bin/sh
# Run by the image before nginx starts: from then on a renewed certificate is taken up within a minute, dropping nobody.
set -eu
(
    last=$(cksum "$CERTIFICATES_DIR/fullchain.pem")
    while sleep 60; do
        now=$(cksum "$CERTIFICATES_DIR/fullchain.pem")
        [ "$now" = "$last" ] || { nginx -p /tmp/ -s reload && last=$now; }
    done
) &
