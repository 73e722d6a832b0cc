// classify says what is in pictures of 28 x 28 grey bytes each, read from stdin.
//
//	bitinfer export-c examples/lenet5.bin -o DIR
//	cp examples/embed/classify.go DIR && cd DIR && go mod init classify && go build
//
// cgo compiles bitinfer_lenet5.c because it lies in the same folder.
package main

/*
#cgo CFLAGS: -O2
#cgo LDFLAGS: -lm
#include "bitinfer_lenet5.h"
*/
import "C"

import (
	"fmt"
	"io"
	"os"
)

func main() {
	var pixels [C.BITINFER_LENET5_INPUTS]C.uint8_t
	var logits [C.BITINFER_LENET5_OUTPUTS]C.float
	bytes := make([]byte, len(pixels))
	for {
		if _, err := io.ReadFull(os.Stdin, bytes); err != nil {
			return
		}
		for i, b := range bytes {
			pixels[i] = C.uint8_t(b)
		}
		if code := C.bitinfer_lenet5_run(&pixels[0], &logits[0]); code != C.BITINFER_LENET5_OK {
			fmt.Fprintln(os.Stderr, "bitinfer_lenet5_run: code", code)
			os.Exit(1)
		}
		best := 0
		for i := range logits {
			if logits[i] > logits[best] {
				best = i
			}
		}
		fmt.Printf("%d %.9g\n", best, float32(logits[best]))
	}
}
