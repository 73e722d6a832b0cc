"use strict";

const byId = (id) => document.getElementById(id);
const PEN = 16;
const DRAWN_AFTER_MS = 250;

let picture = null;      // the Blob that is classified
let asked = 0;           // answers to an older question are dropped
let classes = 0;         // of the chosen model
const modules = new Map();  // WebAssembly modules by model, as promises

function say(text) {
  byId("status").textContent = text;
}

function fail(text) {
  byId("error").textContent = text;
  byId("error").hidden = !text;
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer.");
  }
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error(`The server answered ${response.status}.`);
  }
  if (!response.ok) throw new Error(answer.error || `The server answered ${response.status}.`);
  return answer;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function paint(canvas, image, label) {
  const bytes = Uint8Array.from(atob(image.pixels), (c) => c.charCodeAt(0));
  const data = new ImageData(image.width, image.height);
  for (let i = 0; i < image.width * image.height; i++) {
    for (let c = 0; c < 3; c++) {
      data.data[4 * i + c] = image.channels === 3 ? bytes[3 * i + c] : bytes[i];
    }
    data.data[4 * i + 3] = 255;
  }
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(data, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
}

// --- what the answers look like ---------------------------------------------------------------

function showPredictions(predictions) {
  byId("predictions").replaceChildren(...predictions.map((p) => {
    const item = element("li");
    const percent = (100 * p.probability).toFixed(1);
    item.append(element("span", p.label, "label"), element("span", `${percent} %`));
    const bar = element("div", undefined, "bar");
    bar.setAttribute("aria-hidden", "true");
    const filled = element("span");
    filled.style.width = `${percent}%`;
    bar.append(filled);
    item.append(bar);
    return item;
  }));
}

function showLayers(layers) {
  byId("layers").replaceChildren(...layers.map((layer, index) => {
    const row = element("tr");
    const name = element("td");
    const button = element("button", layer.name);
    button.type = "button";
    button.addEventListener("click", () => showLayer(index));
    name.append(button);
    row.append(name, element("td", `${layer.operation}, ${layer.kernel}`),
      element("td", `${layer.us.toFixed(1)} \u00b5s`, "number"),
      element("td", `${(100 * layer.share).toFixed(1)} %`, "number"));
    return row;
  }));
  byId("layers-section").hidden = false;
}

function clearAnswers() {
  byId("predictions").replaceChildren();
  byId("details").hidden = true;
  byId("layers-section").hidden = true;
  byId("maps-section").hidden = true;
}

async function classify() {
  if (!picture || !byId("model").value) return;
  const number = ++asked;
  fail("");
  say("Working\u2026");
  try {
    const model = encodeURIComponent(byId("model").value);
    const answer = await ask(`page/models/${model}/explain?top_k=5`, { method: "POST", body: picture });
    if (number !== asked) return;
    showPredictions(answer.predictions);
    const best = answer.predictions[0];
    say(`${best.label}, ${(100 * best.probability).toFixed(1)} percent.`);
    byId("stages").textContent = `decode ${answer.ms.decode} ms, preprocess ${answer.ms.preprocess} ms, `
      + `inference ${answer.ms.inference} ms, on ${answer.backend}`;
    paint(byId("input"), answer.input,
      `The picture at ${answer.input.width} by ${answer.input.height} pixels, as the network gets it`);
    byId("details").hidden = false;
    byId("maps-section").hidden = true;
    byId("here").hidden = true;
    showLayers(answer.layers);
    if (answer.has_module) await showHere(answer, number);
  } catch (error) {
    if (number !== asked) return;
    clearAnswers();
    say("");
    fail(error.message);
  }
}

function gallery(parent, images, label) {
  parent.replaceChildren(...images.map((image, i) => {
    const canvas = document.createElement("canvas");
    paint(canvas, image, `${label} ${i + 1}`);
    return canvas;
  }));
}

async function showLayer(index) {
  const number = asked;
  fail("");
  try {
    const model = encodeURIComponent(byId("model").value);
    const answer = await ask(`page/models/${model}/layers/${index}`, { method: "POST", body: picture });
    if (number !== asked) return;
    const signs = "white is +1, black is \u22121";
    const numbers = `black is ${answer.low.toPrecision(3)}, white is ${answer.high.toPrecision(3)}`;
    byId("maps-title").textContent = `${answer.kind === "signs" ? "Sign maps" : "Maps"} of ${answer.layer}`;
    byId("maps-about").textContent = `${answer.shape.join(" \u00d7 ")}; `
      + `${answer.maps.length} of ${answer.shape.length === 3 ? answer.channels : 1} shown; `
      + (answer.kind === "signs" ? signs : numbers);
    gallery(byId("maps"), answer.maps, "Map of channel");
    byId("weights-about").textContent = answer.weights_kind === "none" ? "This layer has none."
      : `The first ${answer.weights.length} filters, their first input channels side by side`
        + (answer.weights_kind === "signs" ? `; ${signs}` : "");
    gallery(byId("weights"), answer.weights, "Weights of filter");
    byId("maps-section").hidden = false;
    byId("maps-title").focus();
  } catch (error) {
    fail(error.message);
  }
}

// --- the same network in this browser ---------------------------------------------------------

async function loadModule(model) {
  const response = await fetch(`page/models/${encodeURIComponent(model)}/module.wasm`);
  if (!response.ok) throw new Error(`The module cannot be loaded (${response.status}).`);
  const nothing = new Proxy({}, { get: () => () => 0 });  // it calls nothing of a system
  const { instance } = await WebAssembly.instantiate(
    await response.arrayBuffer(), { wasi_snapshot_preview1: nothing });
  const name = Object.keys(instance.exports).find((key) => /^bitinfer_\w+_run$/.test(key));
  if (!name || !instance.exports.malloc) throw new Error("The module is no export of bitinfer.");
  return { memory: instance.exports.memory, malloc: instance.exports.malloc, run: instance.exports[name] };
}

function runHere(module, bytes) {
  module.pixels ??= module.malloc(bytes.length);
  module.logits ??= module.malloc(4 * classes);
  new Uint8Array(module.memory.buffer, module.pixels, bytes.length).set(bytes);
  const started = performance.now();
  let rounds = 0;
  do {  // a browser's clock is coarse
    const code = module.run(module.pixels, module.logits);
    if (code !== 0) throw new Error(`The module answers ${code}.`);
    rounds++;
  } while (performance.now() - started < 20 && rounds < 1000);
  const ms = (performance.now() - started) / rounds;
  return { logits: new Float32Array(module.memory.buffer, module.logits, classes).slice(), ms };
}

async function showHere(answer, number) {
  const model = answer.model_name;
  let text;
  try {
    if (!modules.has(model)) modules.set(model, loadModule(model));
    const module = await modules.get(model);
    if (number !== asked) return;
    const bytes = Uint8Array.from(atob(answer.input.pixels), (c) => c.charCodeAt(0));
    const { logits, ms } = runHere(module, bytes);
    const best = logits.indexOf(Math.max(...logits));
    const same = best === answer.predictions[0].index ? "the same class" : `class ${best}, another one`;
    text = `In this browser, as WebAssembly: ${same}, score ${logits[best].toPrecision(6)} `
      + `(the server: ${answer.predictions[0].score.toPrecision(6)}), ${ms.toFixed(3)} ms.`;
  } catch (error) {
    modules.delete(model);
    text = `Not in this browser: ${error.message}`;
  }
  byId("here").textContent = text;
  byId("here").hidden = false;
}

// --- where pictures come from -----------------------------------------------------------------

function take(blob) {
  picture = blob;
  const preview = byId("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(blob);
  preview.hidden = false;
  classify();
}

function setUpFiles() {
  const drop = byId("drop");
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => {
    if (event.target.files.length) take(event.target.files[0]);
    event.target.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) {
    document.addEventListener(name, () => drop.classList.remove("over"));
  }
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
    else fail("That is no file.");
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
  });
  byId("preview").addEventListener("error", () => { byId("preview").hidden = true; });
}

function setUpDrawing() {
  const canvas = byId("draw");
  const pen = canvas.getContext("2d");
  let last = null;
  let timer = 0;
  const clear = () => {
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, canvas.width, canvas.height);
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * canvas.width / box.width,
      (event.clientY - box.top) * canvas.height / box.height];
  };
  const line = (from, to) => {
    pen.strokeStyle = "#fff";
    pen.lineWidth = PEN;
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
  };
  clear();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    clearTimeout(timer);
    last = place(event);
    line(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const here = place(event);
    line(last, here);
    last = here;
  });
  const end = () => {
    if (!last) return;
    last = null;
    timer = setTimeout(() => canvas.toBlob((blob) => blob && take(blob), "image/png"), DRAWN_AFTER_MS);
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  byId("clear").addEventListener("click", clear);
}

async function describeModel() {
  try {
    const model = await ask(`v2/models/${encodeURIComponent(byId("model").value)}`);
    const shape = model.inputs[0].shape.slice(1).join(" \u00d7 ");
    classes = model.outputs[0].shape.slice(1).reduce((a, b) => a * b, 1);
    byId("about").textContent = `version ${model.parameters.version}, input ${shape}, on ${model.parameters.backend}`;
    fail(model.parameters.takes_pictures ? "" : "This model does not take pictures.");
  } catch (error) {
    fail(error.message);
  }
}

async function start() {
  setUpFiles();
  setUpDrawing();
  try {
    const server = await ask("v2");
    byId("model").replaceChildren(...server.models.map((name) => element("option", name)));
  } catch (error) {
    fail(error.message);
    return;
  }
  byId("model").addEventListener("change", async () => {
    clearAnswers();
    await describeModel();
    classify();
  });
  await describeModel();
}

start();
