// Neuroglancer's own client in Chromium: opens a viewer, presses keys over it, tells what it says.
//
//   node neuroglancer.js '{"executable", "address", "shots", "steps": [{"key", "x", "y", "shot"}]}'
//
// x and y are screen points from the middle of the picture. Prints one line of JSON: what was said
// after each step, and milliseconds from each key until that, and until voxels that it asked for.
'use strict';

const path = require('node:path');
const { chromium } = require('playwright-core');

const FLAGS = [
  '--no-sandbox',
  '--no-first-run',
  '--disable-background-networking',
  '--use-gl=angle',
  '--use-angle=swiftshader',
  '--enable-unsafe-swiftshader',
];
const SIZE = { width: 1100, height: 700 };
const MIDDLE = { x: 550, y: 372 }; // of the panel, below the list of layers
const WAITING = /^working/;
const PATIENCE = 120000;

async function said(page) {
  return page.evaluate(() => {
    const shown = document.querySelector('#neuroglancer-status-container, #statusContainer');
    return (shown ? shown.innerText : '').trim();
  });
}

// What the viewer says once it has done what was asked.
async function answered(page, before) {
  const end = Date.now() + PATIENCE;
  let text = before;
  while (Date.now() < end) {
    text = await said(page);
    if (text !== before && text && !WAITING.test(text)) return text;
    await page.waitForTimeout(10);
  }
  throw new Error(`nothing is said after ${JSON.stringify(before)}; still ${JSON.stringify(text)}`);
}

async function main() {
  const { executable, address, shots, steps } = JSON.parse(process.argv[2]);
  const browser = await chromium.launch({ executablePath: executable, headless: true, args: FLAGS });
  try {
    const page = await browser.newPage({ viewport: SIZE });
    const faults = [];
    const strangers = [];
    page.on('pageerror', error => faults.push(String(error.stack || error)));
    page.on('request', request => {
      const { hostname, protocol } = new URL(request.url());
      if (protocol.startsWith('http') && hostname !== '127.0.0.1') strangers.push(request.url());
    });
    const first = page.waitForResponse(r => r.url().includes('/neuroglancer/npz/'), {
      timeout: PATIENCE,
    });
    await page.goto(address, { waitUntil: 'domcontentloaded', timeout: PATIENCE });
    await first;
    await page.waitForTimeout(4000); // software rendering draws late
    const told = [];
    const ms = [];
    let received = 0; // when voxels last arrived
    page.on('requestfinished', request => {
      if (request.url().includes('/neuroglancer/npz/')) received = Date.now();
    });
    for (const { key, x, y, shot } of steps) {
      if (key) {
        const before = await said(page);
        await page.mouse.move(MIDDLE.x + x, MIDDLE.y + y);
        await page.waitForTimeout(1000); // the voxel under the mouse is read back from the picture
        const start = Date.now();
        await page.keyboard.press(key);
        told.push(await answered(page, before));
        const passed = Date.now() - start;
        await page.waitForTimeout(1000);
        ms.push({ said: passed, voxels: received > start ? received - start : null });
      } else {
        told.push(await said(page));
      }
      if (shot) {
        await page.waitForTimeout(3000);
        await page.screenshot({ path: path.join(shots, `${shot}.png`) });
      }
    }
    console.log(JSON.stringify({ address: page.url(), told, ms, faults, strangers }));
  } finally {
    await browser.close();
  }
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
