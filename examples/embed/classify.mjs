// Says what is in pictures of 28 x 28 grey bytes each, read from stdin: node classify.mjs lenet5.wasm
//
//     bitinfer export-c examples/lenet5.bin -o . --isa portable
//     clang --target=wasm32-wasi -O2 -msimd128 -mexec-model=reactor -Wl,--export=malloc -Wl,--export=bitinfer_lenet5_run bitinfer_lenet5.c -o lenet5.wasm -lm
//
// clang turns the vectors of the portable kernels into SIMD128, and binary layers count 128 bits a step
// by i8x16.popcnt.  In a page it is the same, with fetch() in place of readFileSync().
import { readFileSync } from "node:fs";

const INPUTS = 784;
const OUTPUTS = 10; // as bitinfer_lenet5.h has it

const nothing = new Proxy({}, { get: () => () => 0 }); // the module calls nothing of the system
const module = await WebAssembly.instantiate(readFileSync(process.argv[2]), {
  wasi_snapshot_preview1: nothing,
});
const { memory, malloc, bitinfer_lenet5_run } = module.instance.exports;
const pixels = malloc(INPUTS);
const logits = malloc(4 * OUTPUTS);
const pictures = readFileSync(0);
for (let at = 0; at + INPUTS <= pictures.length; at += INPUTS) {
  new Uint8Array(memory.buffer, pixels, INPUTS).set(pictures.subarray(at, at + INPUTS));
  const code = bitinfer_lenet5_run(pixels, logits);
  if (code !== 0) throw new Error(`bitinfer_lenet5_run: code ${code}`);
  const y = new Float32Array(memory.buffer, logits, OUTPUTS);
  const best = y.indexOf(Math.max(...y));
  console.log(best, y[best]);
}
