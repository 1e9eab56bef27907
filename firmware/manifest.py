# For a MicroPython build of your own: freezes the library, so that its bytecode lies in flash and not in the heap.
# Name it by include() in the board's manifest, beside the port's own, which brings umqtt.simple.
# main.py, app.py and hardware.py stay files, to be changed without another build.
package("aziot")  # noqa: F821 as in manifests
