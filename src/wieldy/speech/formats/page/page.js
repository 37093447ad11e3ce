// The page: shows the transcript that lies in it, plays the recording beside it, renames, searches, exports.
// The transcript is never changed; names given here are kept apart and applied to it (`renamed` in exports.js).

// Whisper tiny.en on the real call and the example meeting: below it 7 of 17 words are wrong, from it on 7 of 230.
const LOW_CONFIDENCE = 0.5;
const SKIP_MS = 5000;
const SPEEDS = [1, 1.25, 1.5, 2, 0.75];

const $ = (selector) => document.querySelector(selector);
const source = document.documentElement.outerHTML; // as written, for a copy of the page with other names
const original = parse($("#data").textContent);

const state = {
  view: original, // the transcript with the names given here
  names: new Map(), // first name -> name now, where they differ
  undo: [], // earlier `names`
  exported: true,
  parts: [], // utterances of the view
  spans: [], // one element a word
  starts: [], // each word's start, to find the word at a time
  articles: [], // one element an utterance
  marked: [], // the spans that are being spoken
  following: true,
  without: 0, // where we are, in ms, when there is no recording to ask
};

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function drawing(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function shortClock(ms) {
  const [hours, minutes, seconds] = [Math.floor(ms / 3600000), Math.floor(ms / 60000) % 60, Math.floor(ms / 1000) % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
}

function longClock(ms) {
  const seconds = Math.floor(ms / 1000);
  const units = [[Math.floor(seconds / 3600), "h"], [Math.floor(seconds / 60) % 60, "min"], [seconds % 60, "s"]];
  return units.filter(([count]) => count).slice(0, 2).map((unit) => unit.join(" ")).join(" ") || "0 s";
}

const length = Math.max(original.duration_ms, lastEnd(original.words), lastEnd(original.turns), 1);

// Who is who ----------------------------------------------------------------------------------------------------------

// First come, first coloured; a name keeps its colour when it changes.
const order = [...names(original, (name) => name, "").keys()].filter((speaker) => speaker !== UNKNOWN);
const shown = (speaker) => state.names.get(speaker) ?? speaker;

function voiceClass(name) {
  const index = order.findIndex((speaker) => shown(speaker) === name);
  if (name === UNKNOWN || index < 0) return "v-none";
  return index < 8 ? `v${index}` : `v${index % 8} again`;
}

function rename(from, to) {
  const names = new Map(state.names);
  for (const speaker of [...order, UNKNOWN]) {
    if (shown(speaker) !== from) continue;
    if (speaker === to) names.delete(speaker);
    else names.set(speaker, to);
  }
  state.undo.push(state.names);
  setNames(names);
}

function setNames(names) {
  state.names = names;
  state.view = names.size ? renamed(original, names) : original;
  state.exported = false;
  keepingPlace(show);
}

function undoNames() {
  if (!state.undo.length) return;
  setNames(state.undo.pop());
  toast("Names are as before");
}

async function askToRename(from, to) {
  to = plain(to);
  if (to === from || to === "\ufffd") return;
  const others = new Set([...state.view.words, ...state.view.turns].map((event) => event.speaker));
  if (others.has(to)) {
    if (!(await confirmMerge(from, to))) return;
    rename(from, to);
    toast(`${from} is now part of ${to}`, true);
  } else {
    rename(from, to);
    toast(`${from} is now ${to}`, true);
  }
}

function confirmMerge(from, to) {
  const words = state.view.words.filter((word) => word.speaker === from).length;
  $("#merge h2").textContent = `Merge ${from} into ${to}?`;
  $("#merge p").textContent = `${plural(words, "word")} of ${from} will be ${to}’s. You can undo this.`;
  $("#merge").returnValue = "";
  $("#merge").showModal();
  return new Promise((resolve) => {
    $("#merge").addEventListener("close", () => resolve($("#merge").returnValue === "merge"), { once: true });
  });
}

function nameButton(name) {
  const button = element("button", { className: "who", type: "button", title: "Change this name" });
  button.append(element("span", { dir: "auto" }, name));
  button.addEventListener("click", () => editName(button, name));
  return button;
}

function editName(button, name) {
  const known = element("datalist", { id: "known-names" });
  const names = new Set(order.map(shown));
  known.append(...[...names].filter((other) => other !== name).map((other) => element("option", { value: other })));
  const input = element("input", { className: "rename", value: name, maxLength: 80, ariaLabel: `New name for ${name}` });
  input.setAttribute("list", "known-names");
  let done = false;
  const finish = (commit) => {
    if (done) return;
    done = true;
    input.replaceWith(button);
    known.remove();
    button.focus({ preventScroll: true });
    if (commit) askToRename(name, input.value);
  };
  input.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault(); // or the key would press whatever gets the focus next
    finish(event.key === "Enter");
  });
  input.addEventListener("blur", () => finish(true));
  button.replaceWith(input);
  input.after(known);
  input.focus({ preventScroll: true });
  input.select();
}

// Showing -------------------------------------------------------------------------------------------------------------

function show() {
  state.parts = utterances(state.view.words);
  state.starts = state.view.words.map((word) => word.start_ms);
  showFacts();
  showVoices();
  showWords();
  searchIndex = null;
  if ($("#query").value) search();
  mark();
}

function showFacts() {
  const speakers = new Set([...state.view.words, ...state.view.turns].map((event) => event.speaker));
  speakers.delete(UNKNOWN);
  const facts = [longClock(length), plural(speakers.size, "speaker"), plural(state.view.words.length, "word")];
  try {
    facts.push(new Intl.DisplayNames(["en"], { type: "language" }).of(original.language));
  } catch {
    facts.push(original.language);
  }
  $("#facts").textContent = facts.join(" · ");
}

function path(events) {
  const d = events.map((event) => `M${event.start_ms} 0H${event.end_ms}V1H${event.start_ms}z`).join("");
  return drawing("path", { d });
}

const plot = (...paths) => drawing("svg", { viewBox: `0 0 ${length} 1`, preserveAspectRatio: "none" }, ...paths);

// Stretches in which more than one person speaks.
function crowded(turns) {
  const edges = turns.flatMap((turn) => [[turn.start_ms, 1], [turn.end_ms, -1]]);
  edges.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const found = [];
  let active = 0, since = 0;
  for (const [ms, change] of edges) {
    if (active >= 2 && ms > since) found.push({ start_ms: since, end_ms: ms });
    active += change;
    since = ms;
  }
  return found;
}

function showVoices() {
  const turns = turnsOf(state.view);
  const bySpeaker = new Map();
  for (const event of [...turns, ...state.view.words].sort(byStart)) bySpeaker.set(event.speaker, []);
  for (const turn of turns) bySpeaker.get(turn.speaker).push(turn);
  const talk = (list) => list.reduce((sum, turn) => sum + turn.end_ms - turn.start_ms, 0);
  const total = talk(turns) || 1;
  const rows = [...bySpeaker].map(([speaker, own]) => {
    const lane = plot(path(own));
    lane.setAttribute("class", "lane");
    const share = Math.round((100 * talk(own)) / total);
    return element(
      "div", { className: `voice ${voiceClass(speaker)}` },
      nameButton(speaker), lane, element("span", { className: "share", title: "Share of the talking" }, `${share} %`));
  });
  const lanes = element("div", { id: "lanes", ariaHidden: "true" }, plot(path(crowded(turns))));
  lanes.append(element("div", { className: "playhead" }), element("div", { className: "pointer", hidden: true }));
  const at = (event) => {
    const box = lanes.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * length;
  };
  lanes.addEventListener("click", (event) => seek(at(event)));
  lanes.addEventListener("pointermove", (event) => {
    const pointer = lanes.querySelector(".pointer");
    pointer.hidden = event.pointerType === "touch";
    pointer.style.left = `${(100 * at(event)) / length}%`;
    pointer.dataset.time = shortClock(at(event));
  });
  lanes.addEventListener("pointerleave", () => (lanes.querySelector(".pointer").hidden = true));
  $("#voices").replaceChildren(...rows, axis(), lanes);
  $("#voices").hidden = !rows.length;
  const floor = rows.map((row, index) => {
    const own = path([...bySpeaker.values()][index]);
    own.setAttribute("class", row.className.replace("voice ", ""));
    return own;
  });
  $("#floor").replaceChildren(plot(...floor), element("i"));
}

function axis() {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200].map((seconds) => seconds * 1000);
  const most = innerWidth < 700 ? 3 : 7;
  const step = steps.find((candidate) => length / candidate <= most) ?? steps.at(-1);
  const line = element("div", { className: "axis", ariaHidden: "true" });
  for (let ms = 0; ms <= length; ms += step) {
    const tick = element("span", {}, shortClock(ms));
    tick.style.left = `${(100 * ms) / length}%`;
    if (ms > length * 0.97) tick.style.transform = "translateX(-100%)";
    line.append(tick);
  }
  return line;
}

function showWords() {
  state.spans = [];
  let busyUntil = 0;
  state.articles = state.parts.map((part, index) => {
    const first = state.spans.length;
    const text = element("p", { dir: "auto" });
    for (const word of part.words) {
      const span = document.createElement("span");
      span.className = word.confidence !== null && word.confidence < LOW_CONFIDENCE ? "w unsure" : "w";
      span.textContent = word.text;
      span.index = state.spans.length;
      state.spans.push(span);
      text.append(span, " ");
    }
    const header = element("header", {}, nameButton(part.speaker));
    const when = element("a", { className: "when", href: `#t=${part.start_ms / 1000}` }, shortClock(part.start_ms));
    when.addEventListener("click", (event) => {
      event.preventDefault();
      seek(part.start_ms);
    });
    header.append(when);
    const before = state.parts[index - 1];
    if (before && before.speaker !== part.speaker && part.start_ms < busyUntil) {
      header.append(element("span", { className: "at-once" }, "at the same time"));
    }
    busyUntil = Math.max(busyUntil, part.end_ms);
    const same = before?.speaker === part.speaker ? " same" : "";
    const article = element("article", { className: `said ${voiceClass(part.speaker)}${same}` }, header, text);
    article.first = first;
    return article;
  });
  const nothing = element("p", { className: "nothing" }, "Nobody says a word in this recording.");
  $("#transcript").replaceChildren(...(state.articles.length ? state.articles : [nothing]));
  state.marked = [];
}

// The same paragraph stays where it was on the screen while `change` builds the page anew.
function keepingPlace(change) {
  const line = 120;
  const before = state.articles.find((article) => article.getBoundingClientRect().bottom > line);
  const word = before?.first ?? 0;
  const top = before?.getBoundingClientRect().top ?? 0;
  change();
  const after = state.spans[word]?.closest("article");
  if (after && scrollY > 0) scrollBy(0, after.getBoundingClientRect().top - top);
}

function showNotes() {
  if (original.warnings.length) {
    $("#warnings summary").textContent = plural(original.warnings.length, "warning");
    $("#warnings ul").append(...original.warnings.map((warning) => element("li", {}, warning)));
    $("#warnings").hidden = false;
  }
  const groups = [...grouped("Made with", original.meta)];
  if (original.report) {
    const { title, metrics, tables, notes, details } = original.report;
    const figures = metrics.map((metric) => [metric.name, `${median(metric.values)} ${metric.unit}`]);
    if (figures.length) groups.unshift(table(title, figures));
    groups.push(...tables.map(({ title, columns, rows }) => table(title, rows, columns)), ...grouped("Details", without(original.meta, details)));
    if (notes.length) groups.push(element("ul", {}, ...notes.map((note) => element("li", {}, note))));
  }
  $("#about").append(element("div", { className: "groups" }, ...groups));
  $("#about").hidden = !groups.length;
}

// What of `value` has not been said by `known`.
function without(known, value) {
  const same = ([key, item]) => JSON.stringify(item) === JSON.stringify(known[key]);
  return Object.fromEntries(Object.entries(value).filter((entry) => !same(entry)));
}

// One table for the plain values of an object, and one for each object in it.
function grouped(title, value) {
  const isObject = (item) => item !== null && typeof item === "object" && !Array.isArray(item);
  const plainly = Object.entries(value).filter(([, item]) => !isObject(item));
  const rows = plainly.flatMap(([key, item]) => flattened(item, [spaced(key)]));
  const tables = Object.entries(value)
    .filter(([, item]) => isObject(item))
    .map(([key, item]) => [spaced(key), flattened(item)])
    .filter(([, rows]) => rows.length)
    .map(([key, rows]) => table(key[0].toUpperCase() + key.slice(1), rows));
  return rows.length ? [table(title, rows), ...tables] : tables;
}

const spaced = (key) => key.replaceAll("_", " ");

function flattened(value, path = []) {
  if (value === null) return [];
  if (typeof value === "boolean") value = value ? "yes" : "no";
  if (typeof value !== "object") return [[path.join(" · "), String(value)]];
  if (Array.isArray(value) && value.every((item) => item === null || typeof item !== "object")) {
    return value.length ? [[path.join(" · "), value.join(", ")]] : [];
  }
  return Object.entries(value).flatMap(([key, item]) => flattened(item, [...path, spaced(key)]));
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
  return Number(middle.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
}

function table(title, rows, columns) {
  const cells = (row, head) => row.map((cell, index) => element(head || !index ? "th" : "td", {}, cell));
  const body = rows.map((row) => element("tr", {}, ...cells(row, false)));
  if (columns) body.unshift(element("tr", {}, ...cells(columns, true)));
  return element("section", {}, element("h2", {}, title), element("table", {}, ...body));
}

let toastEnds = 0;

function toast(text, canUndo = false) {
  $("#toast span").textContent = text;
  $("#toast button").hidden = !canUndo;
  $("#toast").hidden = false;
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => ($("#toast").hidden = true), canUndo ? 10000 : 4000);
}

// Playing -------------------------------------------------------------------------------------------------------------

const audio = $("#audio");
const playable = () => Boolean(audio.src) && !audio.error;
const position = () => (playable() ? Math.round(audio.currentTime * 1000) : state.without);

function seek(ms) {
  ms = Math.min(Math.max(0, ms), length);
  if (playable()) audio.currentTime = ms / 1000;
  state.without = ms;
  state.following = true;
  mark(ms);
}

function toggle() {
  if (!playable()) return toast(missing());
  if (!audio.paused) return audio.pause();
  state.following = true;
  return audio.play().catch(() => toast(missing()));
}

const fileName = () => decodeURIComponent((audio.getAttribute("src") ?? "").split("/").pop());

function missing() {
  const name = audio.getAttribute("src")?.startsWith("data:") ? "The recording" : fileName() || "No recording";
  if (!audio.getAttribute("src")) return "No recording belongs to this page; choose one below";
  return audio.error?.code === 4 ? `${name} is not beside this page or cannot be played` : `${name} cannot be played`;
}

// The last word that has begun; those that still go on beside it count too.
function spokenAt(ms) {
  let low = 0, high = state.starts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (state.starts[middle] <= ms) low = middle + 1;
    else high = middle;
  }
  const last = low - 1;
  if (last < 0 || ms > state.view.words[last].end_ms + 1500) return [];
  const found = [last];
  for (let index = last - 1; index >= Math.max(0, last - 20); index--) {
    const word = state.view.words[index];
    if (word.end_ms > ms && word.speaker !== state.view.words[last].speaker) found.push(index);
  }
  return found;
}

function mark(ms = position()) {
  const spans = spokenAt(ms).map((index) => state.spans[index]);
  if (spans.length !== state.marked.length || spans.some((span, index) => span !== state.marked[index])) {
    for (const span of state.marked) span.classList.remove("now");
    for (const span of spans) span.classList.add("now");
    state.marked = spans;
    const current = new Set(spans.map((span) => span.closest("article")));
    for (const article of document.querySelectorAll(".said.current")) {
      if (!current.has(article)) article.classList.remove("current");
    }
    for (const article of current) article.classList.add("current");
    if (spans.length && state.following && !audio.paused) reveal(spans[0]);
  }
  const share = `${(100 * ms) / length}%`;
  $("#time").textContent = shortClock(ms);
  $("#position").value = ms;
  $("#position").setAttribute("aria-valuetext", `${longClock(ms)} of ${longClock(length)}`);
  const playhead = $(".playhead");
  if (playhead) playhead.style.left = share;
  const rest = $("#floor i");
  if (rest) rest.style.left = share;
  $("#follow").hidden = state.following || audio.paused;
}

function reveal(span, always = false) {
  const box = span.getBoundingClientRect();
  if (!always && box.top > 150 && box.bottom < innerHeight - 160) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const far = Math.abs(box.top - innerHeight / 2) > 3 * innerHeight;
  span.scrollIntoView({ block: "center", behavior: calm || far ? "auto" : "smooth" });
}

function paragraph(step) {
  const ms = position();
  const current = state.parts.findLastIndex((part) => part.start_ms <= ms);
  // Going back from inside a paragraph goes to its beginning first, as music players do.
  const inside = step < 0 && current >= 0 && ms - state.parts[current].start_ms > 1500;
  const target = state.parts[Math.max(0, inside ? current : current + step)];
  if (!target) return;
  seek(target.start_ms);
  if (state.marked.length) reveal(state.marked[0]);
}

function tick() {
  if (audio.paused) return;
  mark();
  requestAnimationFrame(tick);
}

function showPlayer() {
  $(".player").hidden = false;
  $("#position").max = length;
  $("#length").textContent = shortClock(length);
  $("#choose").hidden = playable();
  $("#speed").hidden = !playable();
}

audio.addEventListener("play", () => {
  $("#play").classList.add("playing");
  $("#play").ariaLabel = "Pause";
  requestAnimationFrame(tick);
});
audio.addEventListener("pause", () => {
  $("#play").classList.remove("playing");
  $("#play").ariaLabel = "Play";
  mark();
});
audio.addEventListener("seeked", () => mark());
audio.addEventListener("error", showPlayer);
$("#play").addEventListener("click", toggle);
$("#position").addEventListener("input", (event) => seek(Number(event.target.value)));
$("#follow").addEventListener("click", () => {
  state.following = true;
  if (state.marked.length) reveal(state.marked[0], true);
  mark();
});
$("#speed").addEventListener("click", () => {
  audio.playbackRate = SPEEDS[(SPEEDS.indexOf(audio.playbackRate) + 1) % SPEEDS.length];
  $("#speed").textContent = `${audio.playbackRate}×`;
});
$("#choose input").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (!file) return;
  audio.src = URL.createObjectURL(file);
  audio.load();
  showPlayer();
  seek(state.without);
});
for (const kind of ["wheel", "touchmove"]) {
  addEventListener(kind, () => (state.following = false), { passive: true });
}
$("#transcript").addEventListener("click", (event) => {
  const span = event.target.closest(".w");
  if (span && getSelection().isCollapsed) seek(state.view.words[span.index].start_ms);
});
$("#transcript").addEventListener("mouseover", (event) => {
  const span = event.target.closest(".w");
  if (!span || span.title) return;
  const word = state.view.words[span.index];
  const sure = word.confidence === null ? "" : `, ${Math.round(word.confidence * 100)} % sure`;
  const guessed = word.source === "interpolated" ? ", time interpolated" : "";
  span.title = `${shortClock(word.start_ms)}${sure}${guessed}`;
});

// Searching -----------------------------------------------------------------------------------------------------------

let searchIndex = null; // { text, offsets }: all words folded, and where in it each begins
let hits = [];
let hit = -1;

// Case, accents and the shape of apostrophes do not matter; every character keeps its length.
const folds = new Map([["’", "'"], ["‘", "'"]]);

function fold(text) {
  let folded = "";
  for (const character of text) {
    if (!folds.has(character)) {
      const plainer = [...character.normalize("NFD")][0].toLowerCase();
      folds.set(character, plainer.length === character.length ? plainer : character);
    }
    folded += folds.get(character);
  }
  return folded;
}

function indexed() {
  if (searchIndex) return searchIndex;
  const pieces = [], offsets = [];
  let offset = 0;
  for (const part of state.parts) {
    for (const word of part.words) {
      offsets.push(offset);
      pieces.push(fold(word.text), " ");
      offset += word.text.length + 1;
    }
    pieces[pieces.length - 1] = "\n"; // no hit runs on into another paragraph
  }
  return (searchIndex = { text: pieces.join(""), offsets });
}

function search() {
  const query = fold($("#query").value).trim().replace(/\s+/g, " ");
  hits = [];
  hit = -1;
  if (query) {
    const { text } = indexed();
    for (let at = text.indexOf(query); at >= 0; at = text.indexOf(query, at + query.length)) hits.push(at);
    hit = hits.length ? 0 : -1;
  }
  showHits(query.length);
}

function range(from, size) {
  const { offsets } = indexed();
  const wordAt = (offset) => {
    let low = 0, high = offsets.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (offsets[middle] <= offset) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  };
  const [first, last] = [wordAt(from), wordAt(from + size - 1)];
  const found = new Range();
  const place = (word, offset) => [state.spans[word].firstChild, Math.min(offset - offsets[word], state.spans[word].firstChild.length)];
  found.setStart(...place(first, from));
  found.setEnd(...place(last, from + size));
  return found;
}

const MOST_HIGHLIGHTS = 5000; // more than anyone looks at, and still quick to draw

function showHits(size) {
  const query = $("#query").value.trim();
  $("#hits").textContent = !query ? "" : hits.length ? `${hit + 1} of ${hits.length}` : "no hits";
  $("#previous").hidden = $("#next").hidden = hits.length < 2;
  if (globalThis.CSS?.highlights) {
    const near = hits.slice(Math.max(0, hit - MOST_HIGHLIGHTS / 2), hit + MOST_HIGHLIGHTS / 2);
    CSS.highlights.set("hit", new Highlight(...near.map((from) => range(from, size))));
    CSS.highlights.set("hit-now", new Highlight(...(hit < 0 ? [] : [range(hits[hit], size)])));
  }
  if (hit >= 0) {
    state.following = false;
    reveal(range(hits[hit], size).startContainer.parentElement);
  }
}

function nextHit(step) {
  if (!hits.length) return;
  hit = (hit + step + hits.length) % hits.length;
  showHits(fold($("#query").value).trim().replace(/\s+/g, " ").length);
}

let searchBegins = 0;
$("#query").addEventListener("input", () => {
  clearTimeout(searchBegins);
  searchBegins = setTimeout(search, 80);
});
$("#query").addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    clearTimeout(searchBegins);
    if (hit < 0) search();
    else nextHit(event.shiftKey ? -1 : 1);
  } else if (event.key === "Escape") {
    $("#query").value = "";
    search();
    $("#query").blur();
  }
});
$("#previous").addEventListener("click", () => nextHit(-1));
$("#next").addEventListener("click", () => nextHit(1));

// Exporting -----------------------------------------------------------------------------------------------------------

function download(text, suffix, type) {
  const stem = plain(original.name).replace(/[/\\:*?"<>|]/g, "_");
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type })), download: stem + suffix });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// This page with the names given here, as a fresh page of its own.
function copyOfPage() {
  const copy = new DOMParser().parseFromString(source, "text/html");
  copy.querySelector("#data").textContent = writeJson(state.view);
  const paragraphs = state.parts.map((part, index) => {
    const same = state.parts[index - 1]?.speaker === part.speaker ? " same" : "";
    const who = element("span", { className: "who" }, element("span", { dir: "auto" }, part.speaker));
    const header = element("header", {}, who, element("span", { className: "when" }, shortClock(part.start_ms)));
    const text = element("p", { dir: "auto" }, part.words.map((word) => word.text).join(" "));
    return element("article", { className: `said ${voiceClass(part.speaker)}${same}` }, header, text);
  });
  copy.querySelector("#transcript").replaceChildren(...paragraphs);
  return `<!doctype html>\n${copy.documentElement.outerHTML}\n`;
}

function fillMenu() {
  const item = (title, use, act) => {
    const button = element("button", { type: "button" }, title, element("small", {}, use));
    button.setAttribute("role", "menuitem");
    button.addEventListener("click", () => {
      $("#formats").hidePopover();
      act();
    });
    return button;
  };
  const items = EXPORTS.map(({ name, suffix, title, use, write }) => {
    const button = item(title, use, () => {
      download(write(state.view), suffix, "text/plain;charset=utf-8");
      if (name === "json") state.exported = true;
    });
    button.dataset.format = name;
    return button;
  });
  const page = item("This page", "with your names in it", () => {
    download(copyOfPage(), ".html", "text/html;charset=utf-8");
    state.exported = true;
  });
  page.dataset.format = "html";
  $("#formats").append(page, element("hr"), ...items);
}

$("#formats").addEventListener("toggle", (event) => {
  $("#export").setAttribute("aria-expanded", String(event.newState === "open"));
  if (event.newState !== "open") return;
  const button = $("#export").getBoundingClientRect();
  const menu = $("#formats");
  menu.style.top = `${button.bottom + 6}px`;
  menu.style.left = `${Math.max(8, Math.min(button.right, innerWidth - 8) - menu.offsetWidth)}px`;
  menu.querySelector("button").focus();
});
$("#formats").addEventListener("keydown", (event) => {
  const items = [...$("#formats").querySelectorAll("button")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  items[(items.indexOf(document.activeElement) + step + items.length) % items.length].focus();
});
addEventListener("beforeunload", (event) => {
  if (!state.exported) event.preventDefault();
});

// Keyboard ------------------------------------------------------------------------------------------------------------

const KEYS = {
  " ": () => toggle(),
  ArrowLeft: () => seek(position() - SKIP_MS),
  ArrowRight: () => seek(position() + SKIP_MS),
  j: () => paragraph(1),
  k: () => paragraph(-1),
  "/": () => $("#query").select(),
  "?": () => $("#help").showModal(),
};

addEventListener("keydown", (event) => {
  const target = event.target;
  const typing = target.matches("input:not([type=range]), textarea") || $("dialog[open]") || target.closest("[popover]");
  if (typing) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "z") {
    event.preventDefault();
    undoNames();
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && target.matches("button, a, summary, label")) return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

$("#help-button").addEventListener("click", () => $("#help").showModal());
$("#toast button").addEventListener("click", undoNames);

show();
showNotes();
showPlayer();
fillMenu();
const asked = /^#t=(\d+(?:\.\d+)?)$/.exec(location.hash);
if (asked) {
  seek(Number(asked[1]) * 1000);
  if (state.marked.length) reveal(state.marked[0], true);
}
