// SPDX-License-Identifier: Apache-2.0
//
// Chromium against our server: a page, its WebSocket, streams that are read as they come, a form
// with a file.
import assert from "node:assert/strict";
import { accessSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { require, startServer } from "./support.js";

const CHROMIUM = "/usr/bin/chromium";
const { chromium } = require("playwright-core");

function hasChromium() {
  try {
    accessSync(CHROMIUM);
    return true;
  } catch {
    return false;
  }
}
const skip = hasChromium() ? false : `no Chromium at ${CHROMIUM}`;
if (skip) console.log(`skip: ${skip}`);

let server;
let profile;
let browser;
let page;

before(async () => {
  if (skip) return;
  server = await startServer();
  profile = mkdtempSync(join(tmpdir(), "torpor-chromium-"));
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: CHROMIUM,
    headless: true,
    chromiumSandbox: false,
    args: ["--headless", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  page = browser.pages()[0] ?? (await browser.newPage());
  await page.goto(`${server.url}/page`);
});

after(async () => {
  await browser?.close();
  if (profile) rmSync(profile, { recursive: true, force: true });
  await server?.stop();
});

test("the page is shown", { skip }, async () => {
  assert.equal(await page.title(), "conformance");
});

test("WebSocket: text and bytes come back", { skip }, async () => {
  const got = await page.evaluate(async () => {
    const socket = new WebSocket(`ws://${location.host}/ws-same-origin`, "echo.v1");
    socket.binaryType = "arraybuffer";
    const next = (name) => new Promise((resolve) => socket.addEventListener(name, resolve, { once: true }));
    const results = [];
    await next("open");
    for (const n of [0, 1, 125, 126, 65535, 65536, 500000]) {
      const text = "é".repeat(n / 2) + "x".repeat(n % 2);
      socket.send(text);
      results.push((await next("message")).data === text);
      socket.send(new Uint8Array(n).fill(200));
      const bytes = new Uint8Array((await next("message")).data);
      results.push(bytes.length === n && bytes.every((byte) => byte === 200));
    }
    socket.send("!close 4001");
    const { code, reason, wasClean } = await next("close");
    return { results, protocol: socket.protocol, code, reason, wasClean };
  });
  assert.deepEqual(got, { results: Array(14).fill(true), protocol: "echo.v1", code: 4001,
    reason: "as asked", wasClean: true });
});

test("WebSocket: a page of another origin is refused", { skip }, async () => {
  // The same server under another name.
  const other = await browser.newPage();
  await other.goto(`http://localhost:${server.port}/page`);
  const events = await other.evaluate((port) => new Promise((resolve) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/ws-same-origin`);
    socket.onopen = () => resolve("open");
    socket.onerror = () => resolve("refused");
  }), server.port);
  await other.close();
  assert.equal(events, "refused");
});

// Each piece is only sent when the one before has been read.
test("fetch: a body is read as it is sent", { skip }, async () => {
  const pieces = await page.evaluate(async () => {
    const response = await fetch("/events?id=fetch");
    const pieces = [];
    const decoder = new TextDecoder();
    for (const reader = response.body.getReader(); ; ) {
      const { value, done } = await reader.read();
      if (done) return pieces;
      pieces.push(decoder.decode(value));
      await fetch("/release?id=fetch", { method: "POST" });
    }
  });
  assert.deepEqual(pieces, [0, 1, 2, 3, 4].map((i) => `data: ${i}\n\n`));
});

test("EventSource: events arrive as they are sent", { skip }, async () => {
  const events = await page.evaluate(() => new Promise((resolve) => {
    const source = new EventSource("/events?id=source");
    const events = [];
    source.onmessage = async ({ data }) => {
      events.push(data);
      if (events.length === 5) {
        source.close();
        resolve(events);
      }
      await fetch("/release?id=source", { method: "POST" });
    };
  }));
  assert.deepEqual(events, ["0", "1", "2", "3", "4"]);
});

test("fetch: an aborted download does no harm", { skip }, async () => {
  const got = await page.evaluate(async () => {
    const abort = new AbortController();
    const response = await fetch("/stream?n=200000000", { signal: abort.signal });
    await response.body.getReader().read();
    abort.abort();
    return (await (await fetch("/bytes?n=1000")).arrayBuffer()).byteLength;
  });
  assert.equal(got, 1000);
});

test("a form uploads a file, which comes back", { skip }, async () => {
  const buffer = Buffer.from(Uint8Array.from({ length: 3 << 20 }, (_, i) => (i * 31 + (i >> 8)) % 256));
  await page.goto(`${server.url}/page`);
  await page.fill("input[name=note]", "--not a boundary\r\n");
  await page.setInputFiles("input[name=file]", { name: "hé \"1\".bin", mimeType: "application/x-test", buffer });
  await Promise.all([page.waitForURL("**/upload"), page.click("button")]);
  // A browser writes a quote in a name as %22.
  assert.equal((await page.textContent("body")).trim(), "kept hé %221%22.bin");
  const bytes = Buffer.from(await (await fetch(`${server.url}/file`)).arrayBuffer());
  assert.ok(bytes.equals(buffer));
  const inPage = await page.evaluate(async () => (await (await fetch("/file")).arrayBuffer()).byteLength);
  assert.equal(inPage, buffer.length);
});

test("FormData: an empty file", { skip }, async () => {
  const got = await page.evaluate(async () => {
    const form = new FormData();
    form.append("file", new Blob([]), "empty");
    const kept = await (await fetch("/upload", { method: "POST", body: form })).text();
    return { kept, size: (await (await fetch("/file")).arrayBuffer()).byteLength };
  });
  assert.deepEqual(got, { kept: "kept empty\n", size: 0 });
});
