"use strict";
// Every text format, as the Python writers of wieldy.speech.formats make it, to the byte. The names are theirs too:
// whoever changes a writer there changes the function of that name here; a test compares the two on random meetings.

const UNKNOWN = "unknown";

const clock = {
  seconds: (ms) => `${Math.floor(ms / 1000)}.${String(ms % 1000).padStart(3, "0")}`,
  hours(ms) {
    const parts = [Math.floor(ms / 3600000), Math.floor(ms / 60000) % 60, Math.floor(ms / 1000) % 60];
    return parts.map((part) => String(part).padStart(2, "0")).join(":");
  },
  stamp: (ms, point) => `${clock.hours(ms)}${point}${String(ms % 1000).padStart(3, "0")}`,
};

// The transcript ------------------------------------------------------------------------------------------------------

const byStart = (a, b) => a.start_ms - b.start_ms;

function parse(text) {
  const data = JSON.parse(text);
  return {
    // Everything before the words is kept as it is spelt: numbers and the order of keys would not survive parsing.
    head: text.slice(0, text.indexOf('\n  "words": [') + 1),
    name: data.name,
    language: data.language,
    duration_ms: data.duration_ms,
    warnings: data.warnings,
    meta: data.meta,
    report: data.report,
    words: data.words.map((word) => ({
      confidence: null, speaker_confidence: null, source: "asr", stream: 0, ...word,
    })),
    turns: data.turns.map((turn) => ({ confidence: 1, overlap: false, stream: 0, ...turn })),
  };
}

function renamed(transcript, names) {
  const rename = (event) => ({ ...event, speaker: names.get(event.speaker) ?? event.speaker });
  return { ...transcript, words: transcript.words.map(rename), turns: mergeTurns(transcript.turns.map(rename)) };
}

function mergeTurns(turns) {
  const merged = [];
  const last = new Map();
  for (const turn of [...turns].sort((a, b) => a.start_ms - b.start_ms || a.end_ms - b.end_ms)) {
    const old = merged[last.get(turn.speaker)];
    if (old && turn.start_ms <= old.end_ms) {
      const lengths = [old.end_ms - old.start_ms, turn.end_ms - turn.start_ms];
      const weight = lengths[0] + lengths[1];
      old.confidence = weight ? (old.confidence * lengths[0] + turn.confidence * lengths[1]) / weight : 0;
      old.end_ms = Math.max(old.end_ms, turn.end_ms);
    } else {
      last.set(turn.speaker, merged.length);
      merged.push({ ...turn, overlap: false });
    }
  }
  let active = [];
  for (const turn of merged) {
    active = active.filter((other) => other.end_ms > turn.start_ms);
    for (const other of active) {
      if (other.speaker !== turn.speaker && turn.end_ms > turn.start_ms) other.overlap = turn.overlap = true;
    }
    active.push(turn);
  }
  return merged;
}

function utterances(words, maxPauseMs = 2000) {
  const groups = [];
  for (const word of words) {
    const previous = groups.at(-1)?.words.at(-1);
    if (previous?.speaker === word.speaker && word.start_ms - previous.end_ms <= maxPauseMs) {
      groups.at(-1).words.push(word);
    } else {
      groups.push({ start_ms: word.start_ms, speaker: word.speaker, words: [word] });
    }
  }
  for (const group of groups) group.end_ms = lastEnd(group.words);
  return groups;
}

const lastEnd = (events) => events.reduce((end, event) => Math.max(end, event.end_ms), 0);

// What a name or a word becomes in a field ----------------------------------------------------------------------------

const BLANK = /[\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]+/g;
const size = (text) => [...text].length; // in code points, as Python counts

const plain = (text) => text.replace(BLANK, " ").replace(/^ | $/g, "") || "\ufffd";
const token = (text) => plain(text).replaceAll(" ", "_").replace(/^;/, "_");

function names(transcript, shape, joint) {
  const shaped = new Map();
  const taken = new Set();
  const speakers = [...transcript.words, ...transcript.turns].sort(byStart).map((event) => event.speaker);
  for (const speaker of new Set([UNKNOWN, ...speakers])) {
    const wanted = shape(speaker);
    let candidate = wanted;
    for (let number = 2; taken.has(candidate); number++) candidate = wanted + joint + number;
    taken.add(candidate);
    shaped.set(speaker, candidate);
  }
  return shaped;
}

function turnsOf(transcript) {
  if (transcript.turns.length) return transcript.turns;
  const turns = utterances(transcript.words).map(({ start_ms, end_ms, speaker }) => ({
    start_ms, end_ms, speaker, confidence: 1, stream: 0,
  }));
  return mergeTurns(turns);
}

function units(word) {
  const parts = plain(word.text).split(" ");
  if (parts.length === 1) return [{ ...word, text: parts[0] }];
  const duration = word.end_ms - word.start_ms;
  const total = parts.reduce((sum, part) => sum + size(part), 0);
  const edge = (before) => word.start_ms + Math.floor((duration * before) / total);
  let before = 0;
  return parts.map((text) => {
    const start_ms = edge(before);
    before += size(text);
    return { ...word, start_ms, end_ms: edge(before), text };
  });
}

// JSON, SegLST, RTTM, CTM, STM, text, Markdown ------------------------------------------------------------------------

const UNSAFE = /[<>&\u2028\u2029]/g;
const safe = (text) =>
  JSON.stringify(text).replace(UNSAFE, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

function writeJson(transcript) {
  const start = (event) => `    {"start_ms": ${event.start_ms}, "end_ms": ${event.end_ms}`;
  const words = transcript.words.map((word) =>
    [
      `${start(word)}, "text": ${safe(word.text)}`,
      word.confidence === null ? "" : `, "confidence": ${word.confidence}`,
      `, "speaker": ${safe(word.speaker)}`,
      word.speaker_confidence === null ? "" : `, "speaker_confidence": ${word.speaker_confidence}`,
      word.source === "asr" ? "" : `, "source": "${word.source}"`,
      word.stream ? `, "stream": ${word.stream}}` : "}",
    ].join(""));
  const turns = transcript.turns.map((turn) =>
    [
      `${start(turn)}, "speaker": ${safe(turn.speaker)}`,
      turn.confidence === 1 ? "" : `, "confidence": ${turn.confidence}`,
      turn.overlap ? ', "overlap": true' : "",
      turn.stream ? `, "stream": ${turn.stream}}` : "}",
    ].join(""));
  const list = (key, lines) => (lines.length ? `  "${key}": [\n${lines.join(",\n")}\n  ]` : `  "${key}": []`);
  return `${transcript.head}${list("words", words)},\n${list("turns", turns)}\n}\n`;
}

function writeSeglst(transcript) {
  const number = (ms) => String(ms / 1000);
  const entry = (part, words) => {
    const times = words.map((word) => `[${number(word.start_ms)}, ${number(word.end_ms)}]`).join(", ");
    const text = words.map((word) => word.text).join(" ");
    return `{"session_id": ${JSON.stringify(transcript.name)}, "speaker": ${JSON.stringify(part.speaker)}, ` +
      `"start_time": ${number(part.start_ms)}, "end_time": ${number(part.end_ms)}, ` +
      `"words": ${JSON.stringify(text)}, "word_times": [${times}]}`;
  };
  const entries = transcript.words.length
    ? utterances(transcript.words).map((part) => entry(part, part.words.flatMap(units)))
    : turnsOf(transcript).map((turn) => entry(turn, []));
  return entries.length ? `[\n${entries.join(",\n")}\n]\n` : "[]\n";
}

function writeRttm(transcript) {
  const speakers = names(transcript, token, "_");
  return turnsOf(transcript)
    .filter((turn) => turn.end_ms > turn.start_ms)
    .map((turn) => {
      const times = `${clock.seconds(turn.start_ms)} ${clock.seconds(turn.end_ms - turn.start_ms)}`;
      return `SPEAKER ${token(transcript.name)} 1 ${times} <NA> <NA> ${speakers.get(turn.speaker)} <NA> <NA>\n`;
    })
    .join("");
}

function writeCtm(transcript) {
  const name = token(transcript.name);
  return transcript.words
    .flatMap((word) => {
      const confidence =
        word.confidence === null ? "" : ` ${clock.seconds(Math.floor(word.confidence * 1000 + 0.5))}`;
      return units(word).map((unit) => {
        const times = `${clock.seconds(unit.start_ms)} ${clock.seconds(unit.end_ms - unit.start_ms)}`;
        return `${name} ${word.stream + 1} ${times} ${unit.text}${confidence}\n`;
      });
    })
    .join("");
}

function writeStm(transcript) {
  const speakers = names(transcript, token, "_");
  return utterances(transcript.words)
    .map((part) => {
      const times = `${clock.seconds(part.start_ms)} ${clock.seconds(part.end_ms)}`;
      const who = `${token(transcript.name)} ${part.words[0].stream + 1} ${speakers.get(part.speaker)}`;
      return `${who} ${times} ${part.words.map((word) => plain(word.text)).join(" ")}\n`;
    })
    .join("");
}

const spoken = (part) => plain(part.words.map((word) => word.text).join(" "));

function writeTxt(transcript) {
  return utterances(transcript.words)
    .map((part) => `[${clock.hours(part.start_ms)}] ${plain(part.speaker)}: ${spoken(part)}\n`)
    .join("");
}

function writeMd(transcript) {
  const escaped = (text) => plain(text).replace(/[\\`*_[\]<>&|~#]/g, "\\$&");
  const paragraphs = utterances(transcript.words).map(
    (part) => `\n[${clock.hours(part.start_ms)}] **${escaped(part.speaker)}:** ${escaped(spoken(part))}\n`);
  return `# ${escaped(transcript.name)}\n${paragraphs.join("")}`;
}

// SRT and VTT: captions.py explains the rules -------------------------------------------------------------------------

const MAX_LINE = 42, MAX_LINES = 2, MIN_MS = 1000, MAX_MS = 7000, MAX_PER_SECOND = 17, MAX_LATE_MS = 1000;
const MAX_LABEL = 24, LONG_PAUSE_MS = 1000, SHORT_PAUSE_MS = 300;
const SENTENCE = 60, PAUSE = 35, CLAUSE = 25, SCRAP = -40;
const SENTENCE_END = /[.?!…。？！]["'”’»)\]]*$/;
const CLAUSE_END = /[,;:–—、，]["'”’»)\]]*$/;
const LABEL = /^[^:]{1,24}: /u;
const NEVER = 2 ** 52;

function cues(transcript, labels, overlapping) {
  const phrases = phrasesOf(transcript, labels);
  const before = labels ? labelsOf(phrases, labels) : phrases.map(() => "");
  const following = new Map();
  const successors = [...phrases].reverse().map((phrase) => {
    const row = overlapping ? phrase.speaker : "";
    const successor = following.get(row) ?? NEVER;
    following.set(row, phrase.start_ms);
    return successor;
  }).reverse();
  const free = new Map();
  return phrases.map((phrase, index) => {
    const row = overlapping ? phrase.speaker : "";
    const lines = linesOf(phrase.words.map((word) => word.text), before[index]);
    const start_ms = Math.max(phrase.start_ms, free.get(row) ?? 0);
    const last = start_ms + MAX_MS;
    const least = Math.min(Math.max(start_ms + MIN_MS, phrase.end_ms), last);
    const wanted = Math.min(start_ms + Math.ceil((size(lines.join("\n")) * 1000) / MAX_PER_SECOND), last);
    const soon = phrases[index + 1]?.start_ms ?? NEVER;
    const waitedFor = Math.max(successors[index], Math.min(least, successors[index] + MAX_LATE_MS));
    const end_ms = Math.max(start_ms + 1, Math.min(Math.max(least, Math.min(wanted, soon)), waitedFor));
    free.set(row, end_ms);
    return { start_ms, end_ms, lines, speaker: phrase.speaker };
  });
}

function labelsOf(phrases, labels) {
  const doubtful = phrases.map((phrase) => LABEL.test(phrase.words.map((word) => word.text).join(" ")));
  const named = doubtful.includes(true) || phrases.some((phrase) => phrase.speaker !== UNKNOWN);
  let before = named ? "" : UNKNOWN;
  return phrases.map((phrase, index) => {
    const label = doubtful[index] || phrase.speaker !== before ? labels.get(phrase.speaker) : "";
    before = phrase.speaker;
    return label;
  });
}

function linesOf(words, label) {
  const texts = label ? [`${label}:`, ...words] : words;
  const whole = texts.join(" ");
  if (size(whole) <= MAX_LINE || texts.length === 1) return [whole];
  let best = 1, bestScore = -NEVER, first = -1;
  for (let index = 1; index < texts.length; index++) {
    first += size(texts[index - 1]) + 1;
    const second = size(whole) - first - 1;
    const fits = (first <= MAX_LINE || index === 1) && (second <= MAX_LINE || index === texts.length - 1);
    let score = Math.floor((textWorth(texts[index - 1]) * 3) / 5) - Math.abs(second - first);
    if (label && index === 1) score = -NEVER / 2;
    if (fits && score > bestScore) [best, bestScore] = [index, score];
  }
  return [texts.slice(0, best).join(" "), texts.slice(best).join(" ")];
}

function phrasesOf(transcript, labels) {
  const runs = runsOf(transcript.words);
  const ends = runs.map(lastEnd);
  const phrases = [];
  let busy = 0;
  runs.forEach((run, index) => {
    const interrupted = index + 1 < runs.length && runs[index + 1][0].start_ms < ends[index];
    const crossed = interrupted || busy > run[0].start_ms;
    for (const words of split(run, labels?.get(run[0].speaker) ?? "", crossed)) {
      phrases.push({ start_ms: words[0].start_ms, end_ms: lastEnd(words), speaker: words[0].speaker, words });
    }
    busy = Math.max(busy, ends[index]);
  });
  return phrases.sort(byStart);
}

function runsOf(words) {
  const runs = [];
  const current = new Map();
  const ends = new Map();
  let previous = null;
  for (const word of words.flatMap(units).sort(byStart)) {
    const end = ends.get(word.speaker) ?? 0;
    const sameFloor = previous && (previous.speaker === word.speaker || previous.start_ms < end);
    if (current.has(word.speaker) && sameFloor && word.start_ms - end <= LONG_PAUSE_MS) {
      current.get(word.speaker).push(word);
      ends.set(word.speaker, Math.max(end, word.end_ms));
    } else {
      current.set(word.speaker, [word]);
      runs.push(current.get(word.speaker));
      ends.set(word.speaker, word.end_ms);
    }
    previous = word;
  }
  return runs;
}

function split(run, label, crossed) {
  const lengths = run.map((word) => size(word.text));
  const worth = run.map((word, index) => {
    const pause = (run[index + 1] ?? word).start_ms - word.end_ms >= SHORT_PAUSE_MS ? PAUSE : 0;
    return Math.max(textWorth(word.text), pause);
  });
  const found = [];
  let start = 0;
  while (start < run.length) {
    const beginning = run.slice(start, start + 13).map((word) => word.text).join(" ");
    const labelled = label && (start === 0 || crossed || LABEL.test(beginning));
    let stop = reach(run, lengths, start, labelled ? size(label) + 1 : 0);
    if (stop < run.length) stop = bestStop(run, lengths, worth, start, stop);
    found.push(run.slice(start, stop));
    start = stop;
  }
  return found;
}

const textWorth = (text) => (SENTENCE_END.test(text) ? SENTENCE : CLAUSE_END.test(text) ? CLAUSE : 0);

function reach(run, lengths, start, label) {
  let lines = 1, line = label;
  for (let index = start; index < run.length; index++) {
    if (line && line + 1 + lengths[index] > MAX_LINE) [lines, line] = [lines + 1, 0];
    line += lengths[index] + (line ? 1 : 0);
    const tooLong = run[index].end_ms - run[start].start_ms > MAX_MS;
    if (index > start && (lines > MAX_LINES || tooLong)) return index;
  }
  return run.length;
}

function bestStop(run, lengths, worth, start, stop) {
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const full = sum(lengths.slice(start, stop)) + stop - start - 1;
  const following = lengths.slice(stop, stop + MAX_LINE);
  const rest = sum(following) + following.length;
  let best = stop, bestScore = -1000, used = -1;
  for (let end = start + 1; end <= stop; end++) {
    used += lengths[end - 1] + 1;
    let score = Math.floor((100 * used) / full) + worth[end - 1];
    if (run[end - 1].end_ms - run[start].start_ms < MIN_MS) score += SCRAP;
    if (full - used + rest < Math.floor(MAX_LINE / 3)) score += SCRAP;
    if (score >= bestScore) [best, bestScore] = [end, score];
  }
  return best;
}

function shortened(speaker) {
  const letters = [...plain(speaker).replaceAll(":", "-")];
  return letters.length <= MAX_LABEL - 3 ? letters.join("") : `${letters.slice(0, MAX_LABEL - 4).join("")}…`;
}

function writeSrt(transcript) {
  return cues(transcript, names(transcript, shortened, " "), false)
    .map((cue, index) => {
      const text = cue.lines.join("\n").replace(/<(?=[A-Za-z/])/g, "‹").replaceAll("-->", "--›");
      return `${index + 1}\n${clock.stamp(cue.start_ms, ",")} --> ${clock.stamp(cue.end_ms, ",")}\n${text}\n`;
    })
    .join("\n");
}

function writeVtt(transcript) {
  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const voices = names(transcript, plain, " ");
  const blocks = cues(transcript, null, true).map((cue) => {
    const voice = cue.speaker === UNKNOWN ? "" : `<v ${escaped(voices.get(cue.speaker))}>`;
    const times = `${clock.stamp(cue.start_ms, ".")} --> ${clock.stamp(cue.end_ms, ".")}`;
    return `${times}\n${voice}${escaped(cue.lines.join("\n"))}\n`;
  });
  return ["WEBVTT\n", ...blocks].join("\n");
}

const EXPORTS = [
  { name: "txt", suffix: ".txt", title: "Text", use: "to read and paste", write: writeTxt },
  { name: "md", suffix: ".md", title: "Markdown", use: "for notes and wikis", write: writeMd },
  { name: "srt", suffix: ".srt", title: "SRT", use: "subtitles for players", write: writeSrt },
  { name: "vtt", suffix: ".vtt", title: "VTT", use: "captions for the web", write: writeVtt },
  { name: "json", suffix: ".json", title: "JSON", use: "everything, for programs", write: writeJson },
  { name: "seglst", suffix: ".seglst.json", title: "SegLST", use: "utterances, for scoring", write: writeSeglst },
  { name: "rttm", suffix: ".rttm", title: "RTTM", use: "who spoke when", write: writeRttm },
  { name: "ctm", suffix: ".ctm", title: "CTM", use: "words with times", write: writeCtm },
  { name: "stm", suffix: ".stm", title: "STM", use: "utterances with times", write: writeStm },
];
