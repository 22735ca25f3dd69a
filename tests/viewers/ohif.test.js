// OHIF at work with the app: what the page holds, compared voxel by voxel with what the app meant.
//
// PLAN names a JSON file written by test_ohif.py: where the server is, what to click, and files
// with the label maps that the app answers to the same requests.
'use strict';

const test = require('node:test');
const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const { Viewer } = require('./page.js');

const plan = JSON.parse(fs.readFileSync(process.env.PLAN, 'utf8'));
const [X, Y] = plan.shape;
const at = ([i, j, k]) => i + X * (j + Y * k);
const read = name => fs.readFileSync(path.join(plan.folder, name));

// The page's map must hold exactly the segments that the app meant, each under its name.
function sameByName(map, pageNames, meant, meantNames) {
  assert.equal(map.length, meant.length);
  const expected = new Uint8Array(256);
  const values = Object.fromEntries(Object.entries(pageNames).map(([v, name]) => [name, Number(v)]));
  for (const [name, value] of Object.entries(meantNames)) expected[value] = values[name] ?? 0;
  let wrong = 0;
  for (let n = 0; n < map.length; n++) if (map[n] !== expected[meant[n]]) wrong++;
  assert.equal(wrong, 0, `${wrong} of ${map.length} voxels differ from what the app meant`);
}

// The page's volume must hold every voxel of a series as it was exported.
function sameGreyValues(shown, series) {
  const bytes = read(`image-${series}.u16`);
  const image = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  assert.equal(shown.length, image.length);
  const wrong = image.reduce((sum, value, n) => sum + (value === shown[n] ? 0 : 1), 0);
  assert.equal(wrong, 0, `${wrong} of ${image.length} voxels differ from the exported ones`);
}

// What stands of the image's objects, as the app tells any viewer.
async function standing() {
  const asked = new FormData();
  asked.append('params', '{}');
  const address = `${plan.base}/infer/current?image=${plan.series[0]}&output=json`;
  const answer = await fetch(address, { method: 'POST', body: asked });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
}

const count = map => map.reduce((sum, value) => sum + (value ? 1 : 0), 0);

test('OHIF drives the app', { timeout: 1100000 }, async t => {
  const viewer = await Viewer.start(plan);
  const { page } = viewer;
  let info;
  try {
    await t.test('the study opens with every voxel where it was exported', async () => {
      await viewer.open(plan.study);
      sameGreyValues(await viewer.greyValues(plan.series[0]), plan.series[0]);
      await viewer.screenshot('ohif-opened');
    });

    await t.test('the panel connects and offers every task', async () => {
      info = await viewer.connect();
      for (const model of ['segmentation', 'instances', 'proofread', 'proofread_classes']) {
        assert.ok(info.models[model], `no ${model} among ${Object.keys(info.models)}`);
      }
      const names = new Set(Object.values(await viewer.segmentNames()));
      for (const label of info.labels) assert.ok(names.has(label), `no segment ${label}`);
      const declared = Object.keys(await viewer.segmentNames()).map(Number);
      assert.ok(Math.max(...declared) <= 255, 'segments above 255 wrap silently in OHIF');
    });

    for (const level of plan.levels) {
      await t.test(`segmentation, level ${level.name}`, async () => {
        await viewer.chooseModel(2, 'segmentation');
        await viewer.option('infer', 'segmentation', 'level', level.name);
        const { status, params } = await viewer.run(2);
        assert.equal(status, 200);
        assert.equal(params.level, level.name);
        const map = await viewer.labelMap();
        sameByName(map, await viewer.segmentNames(), read(level.file), level.names);
        assert.ok(count(map) > map.length / 10, 'the map is almost empty');
        await viewer.screenshot(`ohif-segmentation-${level.name}`);
      });
    }

    await t.test('instances: every object that the viewer can hold', async () => {
      await viewer.chooseModel(2, 'instances');
      assert.equal((await viewer.run(2)).status, 200);
      const map = await viewer.labelMap();
      const { labels } = info.models.instances;
      sameByName(map, await viewer.segmentNames(), read('instances.u8'), labels);
      assert.equal(new Set(map).size, new Set(read('instances.u8')).size, 'objects were lost');
      await viewer.screenshot('ohif-instances');
    });

    await t.test('proofread: clicks mark the clicked object on the clicked section', async () => {
      await viewer.clearLabelMap();
      await page.click('label[for="tab-3"]');
      await viewer.chooseModel(3, 'proofread');
      for (const click of plan.clicks) {
        await viewer.clearPoints();
        await viewer.clearLabelMap();
        await viewer.chooseLabel(click.label);
        await viewer.clickVoxel(click.voxel);
        const { status, params } = await viewer.run(3);
        assert.equal(status, 200);
        assert.deepEqual(params.foreground, [click.voxel], 'the click went elsewhere');
        const map = await viewer.labelMap();
        const names = await viewer.segmentNames();
        const mask = read(click.file);
        assert.equal(names[map[at(click.voxel)]], click.label);
        sameByName(map, names, mask, { [click.label]: 1 });
        const z = click.voxel[2];
        assert.ok(count(map.subarray(X * Y * z, X * Y * (z + 1))) > 1, 'nothing on the section');
      }
      await viewer.screenshot('ohif-proofread');
    });

    await t.test('proofread, do=accept: a click accepts its object, do=undo takes that back', async () => {
      const click = plan.clicks[0];
      await viewer.clearPoints();
      await viewer.clearLabelMap();
      await viewer.chooseLabel(click.label);
      await viewer.clickVoxel(click.voxel);
      await viewer.option('infer', 'proofread', 'do', 'accept');
      const before = await standing();
      const { status, params } = await viewer.run(3);
      assert.equal(status, 200);
      assert.equal(params.do, 'accept');
      const after = await standing();
      assert.equal(after.done.accepted, before.done.accepted + 1);
      assert.equal(after.edits, before.edits + 1);
      sameByName(
        await viewer.labelMap(), await viewer.segmentNames(), read(click.file), { [click.label]: 1 }
      );
      await viewer.option('infer', 'proofread', 'do', 'undo');
      const back = await viewer.run(3);
      assert.equal(back.status, 200);
      assert.equal(back.params.do, 'undo');
      assert.deepEqual((await standing()).done, before.done);
      await viewer.option('infer', 'proofread', 'do', 'answer');
    });

    await t.test('proofread_classes: points of several labels, one map', async () => {
      await viewer.clearPoints();
      await viewer.clearLabelMap();
      await viewer.chooseModel(3, 'proofread_classes');
      const labels = plan.classes.points.map(([label]) => label);
      for (const [label, voxel] of plan.classes.points) {
        await viewer.chooseLabel(label);
        await viewer.clickVoxel(voxel);
      }
      const { status, params } = await viewer.run(3);
      assert.equal(status, 200);
      for (const [label, voxel] of plan.classes.points) assert.deepEqual(params[label], [voxel]);
      // OHIF draws only the labels that were clicked.
      const drawn = Object.fromEntries(
        Object.entries(plan.classes.names).filter(([name]) => labels.includes(name))
      );
      const map = await viewer.labelMap();
      const names = await viewer.segmentNames();
      sameByName(map, names, read('classes.u8'), drawn);
      for (const [label, voxel] of plan.classes.points) {
        assert.equal(names[map[at(voxel)]], label, `the click on ${label} is not ${label}`);
      }
      await viewer.screenshot('ohif-proofread-classes');
    });

    await t.test('what OHIF stores as a SEG reaches the store', async () => {
      assert.equal(await viewer.store('drawn in OHIF'), 200);
      fs.writeFileSync(path.join(plan.folder, 'stored.u8'), await viewer.labelMap());
      fs.writeFileSync(
        path.join(plan.folder, 'stored.json'),
        JSON.stringify(await viewer.segmentNames())
      );
    });

    await t.test('training starts and its progress shows', async () => {
      await page.click('label[for="tab-1"]');
      // the mirror looks at the store every 30 seconds, and finds what OHIF stored
      for (let n = 0; n < 60; n++) {
        if ((await viewer.json('/datastore/')).completed) break;
        await page.waitForTimeout(1000);
      }
      for (const [key, value] of Object.entries(plan.training)) {
        await viewer.option('train', 'combined', key, String(value));
      }
      const [answer] = await Promise.all([
        page.waitForResponse(r => /\/train\//.test(r.url()) && r.request().method() === 'POST'),
        viewer.tab(1).getByRole('button', { name: 'Update Model' }).click(),
      ]);
      assert.equal(answer.status(), 200, await answer.text());
      await viewer.tab(1).getByRole('button', { name: 'Stop Training' }).waitFor();
      const begin = Date.now();
      let shown = '';
      while (!/^\d+\/\d+ epochs completed$/.test(shown) && Date.now() - begin < 150000) {
        await page.waitForTimeout(2000);
        await viewer.connect();
        shown = await viewer.tab(1).locator('td[title*="epochs"], td[title="Not Running"]')
          .first().getAttribute('title');
        const { status } = await viewer.json('/train/');
        if (!['SUBMITTED', 'RUNNING', 'PENDING'].includes(status)) break;
      }
      assert.match(shown, /^\d+\/\d+ epochs completed$/);
      await viewer.screenshot('ohif-training');
    });

    await t.test('next sample opens the study that the strategy chose', async () => {
      await viewer.tab(1).locator('select.actionInput').selectOption(plan.strategy);
      const [answer] = await Promise.all([
        page.waitForResponse(r => r.url().includes('/activelearning/')),
        viewer.tab(1).getByRole('button', { name: 'Next Sample' }).click(),
      ]);
      assert.equal(answer.status(), 200, await answer.text());
      const sample = await answer.json();
      assert.ok(plan.series.includes(sample.id), `no series of the store: ${sample.id}`);
      const form = page.locator('.nextSampleForm').first();
      await form.getByText(sample.StudyInstanceUID).waitFor();
      await viewer.screenshot('ohif-next-sample');
      page.once('dialog', dialog => dialog.accept());
      await form.getByRole('button', { name: 'OK' }).click();
      await page.waitForURL(url => url.href.endsWith(`=${sample.StudyInstanceUID}`));
      await viewer.shown();
      sameGreyValues(await viewer.greyValues(sample.id), sample.id);
    });

    await t.test('the page met no error', () => assert.deepEqual(viewer.faults, []));
  } catch (error) {
    await viewer.screenshot('ohif-failed');
    throw error;
  } finally {
    await viewer.close();
  }
});
