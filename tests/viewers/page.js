// OHIF's page with MONAI Label's panel: how to open it, click in it, and read label maps back.
//
// The page keeps Cornerstone and OHIF's services in `window.cornerstone` and `window.services`;
// label maps are read from there, so a test sees the voxels that the viewer draws.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { chromium } = require('playwright-core');

// Software rendering: a machine without a display has no GPU for WebGL.
const FLAGS = [
  '--no-sandbox',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--use-gl=angle',
  '--use-angle=swiftshader',
  '--enable-unsafe-swiftshader',
];
const LOOPBACK = ['127.0.0.1', 'localhost'];
const SEGMENTATION = '1'; // the id the panel gives its one segmentation

class Viewer {
  static async start({ executable, base, shots }) {
    const viewer = new Viewer();
    viewer.base = base;
    viewer.shots = shots;
    viewer.faults = [];
    viewer.profile = fs.mkdtempSync(path.join(os.tmpdir(), 'ohif-'));
    viewer.context = await chromium.launchPersistentContext(viewer.profile, {
      executablePath: executable,
      headless: true,
      viewport: { width: 1500, height: 900 },
      args: FLAGS,
    });
    viewer.page = viewer.context.pages()[0];
    // The page asks for fonts from the internet; it must work where there is none.
    await viewer.page.route(
      url => !LOOPBACK.includes(url.hostname),
      route => route.abort()
    );
    viewer.page.on('pageerror', error => viewer.faults.push(String(error.stack || error)));
    await viewer.page.addInitScript(() =>
      localStorage.setItem(
        'investigationalUseDialog',
        JSON.stringify({ expiryDate: null, option: 'always' })
      )
    );
    return viewer;
  }

  async close() {
    await this.context.close();
    fs.rmSync(this.profile, { recursive: true, force: true });
  }

  // With the image visible under the labels, as the viewer's own opacity slider would have it.
  async screenshot(name) {
    await this.page.evaluate(() => {
      const { cornerstone, cornerstoneTools: tools, services } = window;
      if (!services?.segmentationService || !tools) return;
      // Each section is sampled many times over, and the opacities add up.
      services.segmentationService.setStyle({ type: 'Labelmap' }, { fillAlpha: 0.03 });
      for (const { viewport } of cornerstone.getEnabledElements()) {
        tools.utilities.segmentation.triggerSegmentationRender(viewport.id);
      }
    });
    await this.page.waitForTimeout(1500); // software rendering draws late
    await this.page.screenshot({ path: path.join(this.shots, `${name}.png`) });
  }

  async open(studyUid) {
    await this.page.goto(`${this.base}/ohif/monai-label?StudyInstanceUIDs=${studyUid}`, {
      waitUntil: 'domcontentloaded',
    });
    await this.shown();
  }

  // Until the panel is there and every viewport holds the loaded volume.
  async shown() {
    await this.page.waitForSelector('#monailabelServerURL', { timeout: 90000 });
    await this.page.waitForFunction(
      () => {
        const elements = window.cornerstone ? window.cornerstone.getEnabledElements() : [];
        return (
          elements.length > 0 &&
          elements.every(e => e.viewport.getImageData && e.viewport.getImageData())
        );
      },
      null,
      { timeout: 120000 }
    );
    await this.page.waitForFunction(
      () => window.cornerstone.cache.getVolumes().every(v => !v.loadStatus || v.loadStatus.loaded),
      null,
      { timeout: 120000 }
    );
    const dismiss = this.page.getByRole('button', { name: 'Confirm and Hide' });
    if (await dismiss.count()) await dismiss.first().click();
  }

  // Press "connect"; resolves with the server's /info/ once the panel's tabs are there.
  async connect() {
    await this.page.fill('#monailabelServerURL', `${this.base}/`);
    const [answer] = await Promise.all([
      this.page.waitForResponse(r => new URL(r.url()).pathname === '/info/', { timeout: 60000 }),
      this.page.click('.settingsTable .actionButton'),
    ]);
    await this.page.waitForSelector('label[for="tab-2"]', { timeout: 30000 });
    await this.page.waitForFunction(
      id => {
        const map = window.services.segmentationService.getLabelmapVolume(id);
        return map && map.voxelManager;
      },
      SEGMENTATION,
      { timeout: 60000 }
    );
    await this.page.waitForTimeout(1500); // the panel sets colours by a timer of one second
    return answer.json();
  }

  tab(number) {
    return this.page.locator(`.tab:has(> #tab-${number})`);
  }

  // Press "Run" in a tab; resolves with the request's params and the answer's status.
  async run(number) {
    const drawn = this.page.waitForEvent('console', {
      predicate: m => /updated the segmentation's scalar data|Failed to parse/.test(m.text()),
      timeout: 120000,
    });
    drawn.catch(() => {}); // looked at below, and only where the server answered 200
    const [answer] = await Promise.all([
      this.page.waitForResponse(r => r.url().includes('/infer/'), { timeout: 120000 }),
      this.tab(number).locator('.actionButton').click(),
    ]);
    if (answer.status() === 200) await drawn;
    const body = answer.request().postData() || '';
    const sent = /name="params"\r\n\r\n(.*?)\r\n--/s.exec(body);
    return { status: answer.status(), params: sent ? JSON.parse(sent[1]) : null };
  }

  async chooseModel(number, model) {
    await this.tab(number).locator('select.selectBox').selectOption(model);
  }

  // Set an option in the panel's "Options / Configurations" dialog.
  async option(section, name, key, value) {
    await this.page.getByText('Options / Configurations').first().click();
    await this.page.locator('select[name="selectSection"]').selectOption(section);
    await this.page.locator('select[name="selectName"]').selectOption(name);
    const field = this.page.locator(`[id="${section}${name}${key}"]`);
    const kind = await field.evaluate(element => element.tagName);
    if (kind === 'SELECT') await field.selectOption(value);
    else await field.fill(value);
    await this.page.getByRole('button', { name: 'Confirm', exact: true }).click();
    await field.waitFor({ state: 'detached' });
  }

  async clearPoints() {
    await this.tab(3).getByText('Clear All Points').click();
  }

  async chooseLabel(label) {
    const row = this.tab(3).locator('tr.clickable-row').filter({
      has: this.page.locator('td', { hasText: new RegExp(`^\\s*${label}\\s*$`) }),
    });
    await row.first().click();
    await this.page.waitForTimeout(300);
  }

  // Click on a voxel [i, j, k] in the axial viewport, after scrolling to its section.
  async clickVoxel(ijk) {
    const at = await this.page.evaluate(async ijk => {
      const element = window.cornerstone
        .getEnabledElements()
        .find(e => /axial/i.test(e.viewport.id) || e.viewport.type === 'orthographic');
      const viewport = element.viewport;
      const world = viewport.getImageData().imageData.indexToWorld(ijk);
      if (viewport.jumpToWorld) viewport.jumpToWorld(world);
      viewport.render();
      await new Promise(done => setTimeout(done, 500));
      const box = viewport.element.getBoundingClientRect();
      const [x, y] = viewport.worldToCanvas(world);
      const { imageData } = viewport.getImageData();
      // A click has whole pixels: take the one nearest to the voxel that lies in the voxel.
      const near = [0, 1, -1, 2, -2];
      for (const dy of near) {
        for (const dx of near) {
          const at = [Math.round(box.left + x) + dx, Math.round(box.top + y) + dy];
          const there = viewport.canvasToWorld([at[0] - box.left, at[1] - box.top]);
          const hit = imageData.worldToIndex(there).map(Math.round);
          if (hit.every((v, n) => v === ijk[n])) return { x: at[0], y: at[1] };
        }
      }
      throw new Error(`no pixel of the viewport lies in voxel ${ijk}`);
    }, ijk);
    await this.page.mouse.move(at.x, at.y);
    await this.page.mouse.click(at.x, at.y);
    await this.page.waitForTimeout(500);
  }

  // An answer of the server, asked for by the page.
  async json(address) {
    return this.page.evaluate(async url => (await fetch(url)).json(), `${this.base}${address}`);
  }

  // Bytes cross to this process as base64: as a plain array, a million numbers take 15 s.
  async bytes(source, argument) {
    const text = await this.page.evaluate(
      ({ source, argument }) => {
        const values = new Function('argument', source)(argument);
        const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
        let out = '';
        for (let i = 0; i < bytes.length; i += 32768) {
          out += String.fromCharCode.apply(null, bytes.subarray(i, i + 32768));
        }
        return btoa(out);
      },
      { source, argument }
    );
    return Buffer.from(text, 'base64');
  }

  // The label map that the viewer draws, one byte for each voxel, x fastest.
  async labelMap() {
    return this.bytes(
      `return Uint8Array.from(window.services.segmentationService
         .getLabelmapVolume(argument).voxelManager.getCompleteScalarDataArray());`,
      SEGMENTATION
    );
  }

  async clearLabelMap() {
    await this.page.evaluate(id => {
      const manager = window.services.segmentationService.getLabelmapVolume(id).voxelManager;
      manager.setCompleteScalarDataArray(new Uint8Array(manager.getScalarDataLength()));
    }, SEGMENTATION);
  }

  // The grey values of a series, 16 bits for each voxel, x fastest, once every section is there.
  async greyValues(series) {
    // A study opened from another one shows the old volume for a moment, then one without voxels.
    await this.page.waitForFunction(
      uid => {
        const volume = window.cornerstone.cache
          .getVolumes()
          .find(v => v.imageIds.length > 1 && v.imageIds.every(id => id.includes(uid)));
        return (
          volume?.loadStatus?.loaded && volume.voxelManager.getCompleteScalarDataArray().length > 0
        );
      },
      series,
      { timeout: 120000 }
    );
    const bytes = await this.bytes(
      `const volume = window.cornerstone.cache.getVolumes()
         .find(v => v.imageIds.length > 1 && v.imageIds.every(id => id.includes(argument)));
       return Uint16Array.from(volume.voxelManager.getCompleteScalarDataArray());`,
      series
    );
    return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  }

  // Store the label map in the DICOM store, as OHIF's own "store segmentation" does.
  async store(name) {
    await this.page.evaluate(id => {
      window.commandsManager.runCommand('storeSegmentation', {
        segmentationId: id,
        dataSource: window.extensionManager.getActiveDataSource()[0],
      });
    }, SEGMENTATION);
    const field = this.page.getByText('Enter the report name').locator('xpath=following::input[1]');
    await field.fill(name);
    const [answer] = await Promise.all([
      this.page.waitForResponse(r => r.request().method() === 'POST' && /studies$/.test(r.url())),
      this.page.getByRole('button', { name: 'Save' }).click(),
    ]);
    return answer.status();
  }

  // Segment names by the values they have in the page's label map.
  async segmentNames() {
    return this.page.evaluate(id => {
      const { segments } = window.services.segmentationService.getSegmentation(id);
      const names = {};
      for (const [index, segment] of Object.entries(segments)) {
        if (segment) names[index] = segment.label;
      }
      return names;
    }, SEGMENTATION);
  }
}

module.exports = { Viewer, SEGMENTATION };
