"""The report of sim regress, opened in a real browser: Debian's chromium with its chromedriver."""

import os
import re
import shutil

import pytest

from sim.pools import Here
from sim.studies import baseline, regress, regress_report
from sim.studies.scenarios import read_scenarios

CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
DRIVER = shutil.which('chromedriver')
WIDTHS = (1280, 360, 320)
NAMES = ('split-depth-1', 'spdk-reactor-depth-1', 'stop-drain')

# Elements that reach beyond the page, or whose content reaches beyond them.
OVERFLOWING = """
const width = document.documentElement.clientWidth;
return [...document.body.querySelectorAll('*')].filter((e) => {
  const box = e.getBoundingClientRect();
  if (!box.width || !box.height) return false;
  return box.right > width + 0.5 || box.left < -0.5 || e.scrollWidth > e.clientWidth + 1 &&
    getComputedStyle(e).display !== 'inline';
}).map((e) => e.tagName + ' ' + e.textContent.trim().slice(0, 40));
"""
COLUMN = """
return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map(
  (row) => row.cells[arguments[1]].dataset.sort ?? row.cells[arguments[1]].textContent.trim());
"""


@pytest.fixture(scope='module')
def found():
    """One cost raised: two scenarios moved, one did not."""
    before, after = (
        [s for s in read_scenarios(sets=sets) if s.name in NAMES]
        for sets in ([], ['costs.vhost.worker_complete_share=900ns'])
    )
    (then, _), (now, broken) = (
        regress.observe(scenarios, Here(), replications=3) for scenarios in (before, after)
    )
    sizes = {name: (record.points, 3) for name, record in then.items()}
    answer = regress.compare(after, now, baseline.Baseline(then, sizes))
    return answer | {'violations': broken, 'sets': ['<b>a & b</b>']}


@pytest.fixture(scope='module')
def page(found, tmp_path_factory):
    """The file of that comparison."""
    folder = tmp_path_factory.mktemp('report')
    regress_report.write(folder, found)
    return folder / 'report.html'


# ---- without a browser


def test_the_page_names_no_other_file(page):
    text = page.read_text()
    links = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'>\s)]{1,40})', text)
    assert len(links) == 1 + 1 + len(NAMES)
    assert all(link.startswith('data:') for link in links)
    assert not re.search(r'https?://|@import|<link[^>]+stylesheet', text)


def test_the_page_escapes_what_it_is_given(page):
    text = page.read_text()
    assert '&lt;b&gt;a &amp; b&lt;/b&gt;' in text
    assert '<b>' not in text


def test_markdown_has_the_same_table(page, found):
    lines = (page.parent / 'report.md').read_text().splitlines()
    assert lines[0] == '# sim regress: red'
    rows = [re.split(r'(?<!\\)\|', line)[1:-1] for line in lines if line.startswith('|')]
    tables = [[cell.strip() for cell in row] for row in rows]
    assert {len(cells) for cells in tables} == {7}
    for name in NAMES:
        assert any(cells[0] == name for cells in tables)
    moved = [cells for cells in tables if cells[1] == 'stages_ns.used']
    assert moved
    assert all(cells[6] == 'used' for cells in moved if cells[0] == 'split-depth-1')


# ---- in a browser


@pytest.fixture(scope='module')
def browser():
    """A headless chromium that is cut off from every network."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip('no chromium with chromedriver here: apt-get install chromium chromium-driver')
    webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed')
    service = pytest.importorskip('selenium.webdriver.chrome.service')
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    arguments = ['--headless=new', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run']
    arguments += ['--no-sandbox'] if os.geteuid() == 0 else []
    for argument in arguments:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=service.Service(DRIVER))
    driver.execute_cdp_cmd('Network.enable', {})
    driver.execute_cdp_cmd(
        'Network.emulateNetworkConditions',
        {'offline': True, 'latency': 0, 'downloadThroughput': 0, 'uploadThroughput': 0},
    )
    yield driver
    driver.quit()


def opened(browser, page, width):
    """The page in a window of that width, everything unfolded."""
    browser.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': True},
    )
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    assert browser.execute_script('return document.documentElement.clientWidth') == width
    return browser


def test_it_opens_without_network_and_without_complaint(browser, page):
    opened(browser, page, 1280)
    assert browser.title == 'sim regress: red'
    assert browser.get_log('browser') == []
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map((e) => e.name)"
    )
    assert [name for name in fetched if not name.startswith('data:')] == []
    assert 'points compared' in browser.find_element('id', 'counts').text


@pytest.mark.parametrize('width', WIDTHS)
def test_every_figure_is_seen(browser, page, width):
    opened(browser, page, width)
    images = browser.execute_script(
        'return [...document.images].map((i) => { const box = i.getBoundingClientRect();'
        'return [i.complete, i.naturalWidth, box.width, box.height, box.left, box.right, i.alt] })'
    )
    assert len(images) == 1 + len(NAMES)
    for complete, natural, wide, high, left, right, alt in images:
        assert complete, alt
        assert natural > 600, alt
        assert wide >= 280, alt
        assert high > 100, alt
        assert 0 <= left < right <= width, alt


def test_no_state_is_broken_over_two_lines(browser, page):
    opened(browser, page, 1200)
    browser.execute_script(  # a long text beside it takes the room of the other columns
        "for (const about of document.querySelectorAll('#scenarios td .soft'))"
        "{ about.textContent = 'what it is there for '.repeat(20) }"
    )
    lines = browser.execute_script(
        "return [...document.querySelectorAll('#scenarios td.state')].map((cell) => {"
        'const text = document.createRange(); text.selectNodeContents(cell);'
        'return text.getClientRects().length })'
    )
    assert lines == [1] * len(NAMES)


@pytest.mark.parametrize('width', WIDTHS)
def test_nothing_is_cut(browser, page, width):
    opened(browser, page, width)
    assert browser.execute_script('return document.documentElement.scrollWidth') == width
    assert browser.execute_script(OVERFLOWING) == []
    browser.execute_script(
        "const p = document.createElement('p'); p.textContent = 'wide'; p.style.width = '3000px';"
        'document.body.append(p)'
    )
    assert 'P wide' in browser.execute_script(OVERFLOWING)


@pytest.mark.parametrize('width', [1280, 360])
@pytest.mark.parametrize(('table', 'column'), [('#scenarios', 3), ('#scenarios', 0), ('#moved', 5)])
def test_a_table_sorts_on_a_click_and_back_on_the_next(browser, page, width, table, column):
    opened(browser, page, width)
    before = browser.execute_script(COLUMN, table, column)
    head = browser.find_elements('css selector', f'{table} th button')[column]
    head.click()
    up = browser.execute_script(COLUMN, table, column)
    head.click()
    down = browser.execute_script(COLUMN, table, column)
    assert sorted(up) == sorted(down) == sorted(before)
    numbers = [value_of(text) for text in up]
    assert numbers == sorted(numbers)
    assert [value_of(text) for text in down] == sorted(numbers, reverse=True)
    assert len(set(up)) > 1
    sort = browser.find_elements('css selector', f'{table} th')[column].get_attribute('aria-sort')
    assert sort == 'descending'


def value_of(text):
    """What the page sorts by: numbers before words."""
    match = re.match(r'[-+]?[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?(?=$|[ %])', text.replace(',', ''))
    return (0, float(match[0]), '') if match else (1, 0.0, text.lower())
